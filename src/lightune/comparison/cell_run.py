"""A cell is run in a process of its own: its memory is its own, and what ends it ends nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightune.artifact.claimed import read_object
from lightune.artifact.folder import RESULTS, lock
from lightune.comparison.cells import Cell
from lightune.comparison.folder import CELLS, LOGS, RUNS, SEARCHES
from lightune.recipe import write_recipe

BEST, FOUND = "best.toml", "search.json"  # of a search
LOOK_SECONDS = 0.5  # between looks at a process


@dataclass(frozen=True)
class Runner:
    """Runs the cells of a comparison in `folder`. tune: trials of a search before each run; 0: none.

    space: what such a search may try, where the recipe says it.
    """

    folder: Path
    tune: int = 0
    space: Mapping[str, Any] | None = None
    offline: bool = False

    def make_folders(self) -> None:
        """Those that cells write to."""
        for name in (CELLS, LOGS, RUNS, *((SEARCHES,) if self.tune else ())):
            (self.folder / name).mkdir(exist_ok=True)

    def run_of(self, cell: Cell) -> Path:
        """The run folder of a cell."""
        return self.folder / RUNS / cell.name

    @contextmanager
    def held(self, cell: Cell) -> Iterator[int | None]:
        """Inside, no other process runs this cell; None if one does, or what is left of one that was killed."""
        try:
            descriptor = lock(self.folder / CELLS / f"{cell.name}.lock")
        except OSError:
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def run(self, cell: Cell, held: int, tell: Callable[[str], None]) -> str:
        """Makes the run of a cell; what went wrong, in a line, or nothing. held: its lock, which the run keeps.

        tell: gets the last line of what is said meanwhile, now and then.
        """
        run = self.run_of(cell)
        if (run / RESULTS).is_file():
            return ""
        recipe = self.folder / CELLS / f"{cell.name}.toml"
        write_recipe(cell.checked, {}, recipe)
        also = ["--offline"] if self.offline else []
        given = cell.checked.recipe
        if self.tune and not cell.is_baselines:
            search = self.folder / SEARCHES / cell.name
            options = ["--trials", str(self.tune), "--no-runs", "--no-baselines", "--output", str(search)]
            if failed := self._call(cell, ["tune", str(recipe), *options, *self._settings(cell), *also], held, tell):
                return failed
            recipe = search / BEST
            also += ["--seeds", str(given.seeds)]
            also += ["--time-budget", given.time_budget] if given.time_budget else []
        return self._call(cell, ["run", str(recipe), "--output", str(run), *also], held, tell)

    def found_values(self, cell: Cell) -> dict[str, Any]:
        """What the search for a cell's recipe found; nothing without one."""
        path = self.folder / SEARCHES / cell.name / FOUND
        return dict(read_object(path)["winner"]["values"]) if self.tune and path.is_file() else {}

    def _settings(self, cell: Cell) -> list[str]:
        """What may be tried, of what the recipe says, for the method of this cell."""
        import tomlkit

        is_own = cell.method.partition(":")[0] == cell.checked.recipe.method.name
        kept = {key: value for key, value in (self.space or {}).items() if is_own or not key.startswith("method.")}
        return [part for key, value in kept.items() for part in ("--set", _setting(key, tomlkit.item(value)))]

    def _call(self, cell: Cell, arguments: Sequence[str], held: int, tell: Callable[[str], None]) -> str:
        """Calls lightune in a fresh process; the last line of its errors if it fails."""
        # -P: no module is taken from the folder the user stands in
        command = [sys.executable, "-P", "-m", "lightune", *arguments]
        log = self.folder / LOGS / f"{cell.name}.txt"
        errors = log.with_suffix(".errors.txt")
        with log.open("ab") as out, errors.open("wb") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, pass_fds=[held])
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


def _setting(key: str, value: Any) -> str:
    return f"search.{key}={value.as_string()}"


def _last_line(path: Path) -> str:
    """The last line of a text file with something on it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4000))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
