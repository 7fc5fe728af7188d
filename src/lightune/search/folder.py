"""The folder of a search: what is in it, and how processes that were started alike come to share it.

settings.json   what is searched, by which the same command finds its search again
plan.json       what is tried, on how many rows: as the first process planned it
finals.json     the finalists, once the trials are closed
search.db       the trials and the finals, two Optuna studies; optuna-dashboard opens it
finals/         dev logits of each finalist and seed
workers/        a file for each process that takes part, locked while it lives
winner/         the run of the best recipe found: a whole run folder
default/        the run of the recipe as it was given, beside it
best.toml       the best recipe, for `lightune run`
search.json     every number of the search, once it is over
search.html     its page
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightune.errors import GateError, UserError
from lightune.recipe import Checked, flatten

PLAN, CLOSED = "plan.json", "finals.json"
SETTINGS, RESULTS, PAGE, BEST = "settings.json", "search.json", "search.html", "best.toml"
WINNER, AS_IT_IS = "winner", "default"
DIGEST, ID = "digest", "id"  # of the data, and of the search, among the settings


def settings_of(checked: Checked) -> dict[str, Any]:
    """What is searched, flat; not where it is stored, which may hold a password."""
    search = {f"search.{key}": value for key, value in checked.search.model_dump(exclude={"storage"}).items()}
    return flatten(checked.recipe.model_dump()) | search


def find_folder(output: str | Path | None, checked: Checked) -> Path:
    """Where this search goes: a new folder, or the one in which the same command has begun it. Nothing is written.

    Without `output` that is the next runs/NAME-search, numbered, that is not over. UserError where the folder holds
    something else.
    """
    wanted = settings_of(checked)
    if output:
        if why := _why_not(Path(output), wanted):
            raise UserError(f"{output}: {why}. Choose another --output.")
        return Path(output)
    name = Path("runs") / f"{checked.name}-search"
    numbered = (name.with_name(f"{name.name}-{i}") if i > 1 else name for i in range(1, 10_000))
    return next(path for path in numbered if not _why_not(path, wanted) and not (path / RESULTS).is_file())


def _why_not(path: Path, wanted: Mapping[str, Any]) -> str:
    """Why a search for `wanted` cannot go there; nothing if it can."""
    if not path.exists():
        return ""
    if not path.is_dir():
        return "is a file, not a folder"
    if not (path / SETTINGS).is_file():
        is_being_made = all(each.name.startswith(f".{SETTINGS}") for each in path.iterdir())
        return "" if is_being_made else "holds something else than a search"
    found = _read(path / SETTINGS)
    skipped = {ID} | ({DIGEST} - set(wanted))
    other = sorted(key for key in {*wanted, *found} - skipped if found.get(key) != wanted.get(key))
    told = ", ".join(f"{key} = {found.get(key)!r}, not {wanted.get(key)!r}" for key in other[:3])
    return f"holds a search of something else ({told})" if other else ""


def claim(path: Path, checked: Checked, digest: str) -> tuple[str, bool]:
    """Makes the folder, unless the same search has one there already: the search's id, and whether it has.

    digest: of the data. UserError if another search has come first, or the data is no longer the same.
    """
    wanted = settings_of(checked) | {DIGEST: digest}
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GateError(f"{path}: cannot be written ({error.strerror}). Choose another --output.") from None
    found, is_ours = write_once(path / SETTINGS, wanted | {ID: uuid.uuid4().hex[:12]})
    if why := _why_not(path, wanted):
        raise UserError(f"{path}: {why}. Choose another --output.")
    return str(found.get(ID)), not is_ours


def write_once(path: Path, values: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """What the file holds, and whether it is ours: of several processes the first one writes it, the others read it.

    UserError if it cannot be read, GateError if it cannot be written.
    """
    if path.is_file():
        return _read(path), False
    try:
        descriptor, part = tempfile.mkstemp(prefix=f".{path.name}", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=2)
        try:
            os.link(part, path)  # fails where there is one, and never shows half a file
            return values, True
        except FileExistsError:
            return _read(path), False
        finally:
            os.unlink(part)
    except OSError as error:
        raise GateError(f"{path}: cannot be written ({error.strerror}). Choose another --output.") from None


def _read(path: Path) -> dict[str, Any]:
    """An object of JSON. UserError if there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Choose another --output.") from None


def read_results(path: Path) -> dict[str, Any] | None:
    """What search.json says, None while the search is not over."""
    if not (path / RESULTS).is_file():
        return None
    return _read(path / RESULTS)
