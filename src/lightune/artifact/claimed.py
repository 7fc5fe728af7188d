"""Folders of work that takes long: the same command finds its own again, and several processes may share one.

settings.json in it says what the work is of. A folder that holds something else is left alone.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightune.artifact.folder import alone, folder_typed
from lightune.errors import GateError, UserError

SETTINGS = "settings.json"
DIGEST, ID, KIND = "digest", "id", "kind"  # of the data, of the work, and what it is, among the settings
ELSEWHERE = "Choose another --output."
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}  # a file system without hard links


@dataclass(frozen=True)
class Claim:
    """What a folder is wanted for. what: in a word; settings: flat; results: the file that says that it is over.

    name: of its folder in runs/, where there is no `output`, a folder that was typed. is_whole: whether such results
    in a folder are, or the same command goes on with what is missing.
    """

    what: str
    settings: Mapping[str, Any]
    results: str
    name: str = ""
    output: str | Path | None = None
    is_whole: Callable[[Path, dict[str, Any]], bool] = lambda folder, results: True

    def find(self) -> Path:
        """Where this work goes: a new folder, or the one in which the same command has begun it. Nothing is written.

        Without `output` that is the next runs/NAME, numbered, that is not over. UserError where the folder holds
        something else.
        """
        if self.output:
            path = folder_typed(self.output)
            if why := self._why_not(path, self.settings):
                raise UserError(f"{self.output}: {why}. {ELSEWHERE}")
            return path
        return self._next(self.settings)

    def _next(self, wanted: Mapping[str, Any]) -> Path:
        first = folder_typed(Path("runs") / self.name)
        numbered = (first.with_name(f"{self.name}-{i}") if i > 1 else first for i in range(1, 10_000))
        return next(path for path in numbered if not self._why_not(path, wanted) and self.over(path) is None)

    def take(self, path: Path, digest: str) -> tuple[Path, str, bool]:
        """Makes the folder, unless the same work has one there already: where, the work's id, and whether it has.

        digest: of the data. Where other work has come first, or the data is no longer the same, that is the next
        folder; UserError if `output` was typed.
        """
        wanted = {**self.settings, DIGEST: digest}
        while True:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise GateError(f"{path}: cannot be written ({error.strerror}). {ELSEWHERE}") from None
            found, is_ours = write_once(path / SETTINGS, wanted | {KIND: self.what, ID: uuid.uuid4().hex[:12]})
            if not (why := self._why_not(path, wanted)):
                return path, str(found.get(ID)), not is_ours
            if self.output:
                raise UserError(f"{path}: {why}. {ELSEWHERE}")
            path = self._next(wanted)

    def over(self, path: Path, digest: str | None = None) -> dict[str, Any] | None:
        """What the results say, None while the work is not over.

        digest: of the data as it is now. UserError if the results are of other data.
        """
        if not (path / self.results).is_file():
            return None
        if digest is not None and (why := self._why_not(path, {**self.settings, DIGEST: digest})):
            raise UserError(f"{path}: {why}. {ELSEWHERE}")
        results = read_object(path / self.results)
        return results if self.is_whole(path, results) else None

    def _why_not(self, path: Path, wanted: Mapping[str, Any]) -> str:
        """Why what is `wanted` cannot go there; nothing if it can."""
        if not path.exists():
            return ""
        if not path.is_dir():
            return "is a file, not a folder"
        if not (path / SETTINGS).is_file():
            is_being_made = all(each.name.startswith(f".{SETTINGS}") for each in path.iterdir())
            return "" if is_being_made else f"holds something else than a {self.what}"
        found = read_object(path / SETTINGS)
        if (kind := found.get(KIND)) != self.what:
            return f"holds {f'a {kind}' if kind else 'something else'}, not a {self.what}"
        skipped = {ID, KIND} | ({DIGEST} - set(wanted))
        other = sorted(key for key in {*wanted, *found} - skipped if found.get(key) != wanted.get(key))
        if other == [DIGEST]:
            return f"holds a {self.what} of other data: it has changed since"
        told = ", ".join(f"{key} = {found.get(key)!r}, not {wanted.get(key)!r}" for key in other[:3])
        return f"holds a {self.what} of something else ({told})" if other else ""


def shown_folder(path: Path) -> str:
    """How a page names its folder: as it was typed; of an absolute path the last part, since pages are passed on."""
    return path.name if path.is_absolute() else str(path)


def write_once(path: Path, values: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """What the file holds, and whether it is ours: of several processes the first one writes it, the others read it.

    UserError if it cannot be read, GateError if it cannot be written.
    """
    if path.is_file():
        return read_object(path), False
    try:
        part = path.with_name(f".{path.name}{uuid.uuid4().hex}")
        try:
            part.write_text(json.dumps(values, indent=2), encoding="utf-8")
            os.link(part, path)  # fails where there is one, and never shows half a file
            return values, True
        except FileExistsError:
            return read_object(path), False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with alone(path.with_name(f".{path.name}.lock")):
                if path.is_file():
                    return read_object(path), False
                os.replace(part, path)
                return values, True
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise GateError(f"{path}: cannot be written ({error.strerror}). {ELSEWHERE}") from None


def read_object(path: Path) -> dict[str, Any]:
    """An object of JSON. UserError if there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read ({why}). {ELSEWHERE}") from None
