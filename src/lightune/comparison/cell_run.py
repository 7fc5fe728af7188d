"""A cell is run in a process of its own: its memory is its own, and what ends it ends nothing else."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightune.artifact.claimed import read_object
from lightune.artifact.folder import RESULTS, alone, lock, write_json
from lightune.comparison.cells import Cell
from lightune.comparison.folder import CELLS, LOGS, RUNS, SEARCHES
from lightune.errors import GateError
from lightune.legible import as_argument
from lightune.recipe import SearchRecipe, write_recipe
from lightune.search.folder import BEST, STORAGE_VARIABLE
from lightune.search.folder import RESULTS as FOUND

LOOK_SECONDS = 0.5  # between looks at a process
SAME_SECONDS = 2.0  # within which two readings of when a process began are of the same one


@dataclass(frozen=True)
class Runner:
    """Runs the cells of a comparison in `folder`. has_search: one for each recipe before its run.

    began: this process, in seconds since the epoch.
    """

    folder: Path
    has_search: bool = False
    offline: bool = False
    began: float = field(default_factory=time.time)

    def make_folders(self) -> None:
        """Those that cells write to."""
        for name in (CELLS, LOGS, RUNS, *((SEARCHES,) if self.has_search else ())):
            (self.folder / name).mkdir(exist_ok=True)

    def run_of(self, cell: Cell) -> Path:
        """The run folder of a cell."""
        return self.folder / RUNS / cell.name

    @contextmanager
    def held(self, cell: Cell) -> Iterator[int | None]:
        """Inside, no other process runs this cell; None if one does, or what is left of one that was killed."""
        path = self._lock_of(cell)
        try:
            descriptor = lock(path)
        except BlockingIOError:
            yield None
            return
        except OSError as error:
            raise GateError(f"{path}: cannot be locked ({error.strerror}). Choose another --output.") from None
        try:
            path.write_text(f"{platform.node()} {os.getpid()} {_began(os.getpid())}", encoding="utf-8")
            yield descriptor
        finally:
            os.close(descriptor)

    def is_left_alone(self, cell: Cell) -> bool:
        """Whether what runs this cell here was started by a process that is dead: it is to be waited for."""
        path = self._lock_of(cell)
        host, _, who = path.read_text(encoding="utf-8").partition(" ") if path.is_file() else ("", "", "")
        pid, _, began = who.partition(" ")
        if host != platform.node() or not pid.isdigit():
            return False
        now = _began(int(pid))
        return now is None or bool(began and abs(now - float(began)) > SAME_SECONDS)

    def _lock_of(self, cell: Cell) -> Path:
        return self.folder / CELLS / f"{cell.name}.lock"

    @contextmanager
    def last(self) -> Iterator[None]:
        """Inside, no other process ends this comparison."""
        with alone(self.folder / CELLS / "last.lock"):
            yield

    def run(self, cell: Cell, held: int, tell: Callable[[str], None]) -> str:
        """Makes the run of a cell; what went wrong, in a line, or nothing. held: its lock, which the run keeps.

        tell: gets the last line of what is said meanwhile, now and then.
        """
        run = self.run_of(cell)
        if (run / RESULTS).is_file():
            return ""
        recipe = self.folder / CELLS / f"{cell.name}.toml"
        write_recipe(cell.checked, {}, recipe)
        storage = cell.checked.search.storage
        also = ["--offline"] if self.offline else []
        given = cell.checked.recipe
        if self.has_search and not cell.is_baselines:
            search = self.folder / SEARCHES / cell.name
            _add_search(cell.checked.search, recipe)
            options = ["--no-runs", "--no-baselines", "--output", as_argument(search), *also]
            if failed := self._call(cell, ["tune", as_argument(recipe), *options], held, tell, storage):
                return failed
            recipe = search / BEST
            also += ["--seeds", str(given.seeds)]
            also += ["--time-budget", given.time_budget] if given.time_budget else []
        return self._call(cell, ["run", as_argument(recipe), "--output", as_argument(run), *also], held, tell)

    def failure_of(self, cell: Cell) -> str:
        """Why this cell failed since our process began, in another one; nothing if it did not."""
        path = self._failure_file(cell)
        noted = read_object(path) if path.is_file() else {}
        return str(noted["why"]) if noted.get("at", 0.0) >= self.began else ""

    def note_failure(self, cell: Cell, why: str) -> None:
        """Those that share the comparison need not try it, too; the next command does."""
        write_json(self._failure_file(cell), {"at": time.time(), "why": why})

    def _failure_file(self, cell: Cell) -> Path:
        return self.folder / CELLS / f"{cell.name}.failed.json"

    def found_values(self, cell: Cell) -> dict[str, Any]:
        """What the search for a cell's recipe found; nothing without one."""
        path = self.folder / SEARCHES / cell.name / FOUND
        return dict(read_object(path)["winner"]["values"]) if self.has_search and path.is_file() else {}

    def _call(
        self, cell: Cell, arguments: Sequence[str], held: int, tell: Callable[[str], None], storage: str | None = None
    ) -> str:
        """Calls lightune in a fresh process; the last line of its errors if it fails."""
        # -P: no module is taken from the folder the user stands in
        command = [sys.executable, "-P", "-m", "lightune", *arguments]
        log = self.folder / LOGS / f"{cell.name}.txt"
        errors = log.with_suffix(".errors.txt")
        env = os.environ | ({STORAGE_VARIABLE: storage} if storage else {})  # no password where all can read it
        with log.open("ab") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, pass_fds=[held], env=env
            )
            try:
                while True:
                    try:
                        code = process.wait(LOOK_SECONDS)
                        break
                    except subprocess.TimeoutExpired:
                        tell(_last_line(log))
            except BaseException:
                process.terminate()  # it puts away what it has half written
                process.wait()
                raise
        told = _last_line(errors).removeprefix("lightune: ")
        if code == 0:
            errors.unlink()
            return ""
        return told or f"its process ended with {code}"


def _began(pid: int) -> float | None:
    """Seconds from the start of the machine to that of a process, which tell it from a later one; None: it is gone.

    A clock that is set moves both ends.
    """
    import psutil

    try:
        return float(psutil.Process(pid).create_time() - psutil.boot_time())
    except psutil.NoSuchProcess:
        return None


def _add_search(search: SearchRecipe, path: Path) -> None:
    """Writes the table [search] under a recipe; not where it is stored, which may hold a password."""
    import tomlkit

    written = tomlkit.dumps({"search": search.model_dump(exclude={"storage"})})
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{written}")


def _last_line(path: Path) -> str:
    """The last line of a text file with something on it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4000))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
