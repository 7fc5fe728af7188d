"""Whether a file can be written where it is asked for, found out before any work."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lightune.errors import UserError

OTHER = "Choose another --output."


def check_destination(path: Path, endings: Sequence[str], sources: Sequence[str] = ()) -> None:
    """UserError if the file cannot be written, or if it is one that is read or lies among such.

    endings: of the formats that can be written; sources: the files and folders that are read, "-" for standard input.
    """
    if path.suffix.lower() not in endings:
        kind = path.suffix or "a file without an ending"
        raise UserError(f"{path}: cannot be written as {kind}. Use {', '.join(endings)}.")
    try:
        _check_place(path)
        for source in sources:
            _check_apart(path, source)
    except OSError as error:  # a name that is too long
        raise UserError(f"{str(path)[:80]}: cannot be written ({error.strerror}). {OTHER}") from None


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise UserError(f"{path}: its folder does not exist. Make it first, or choose another --output.")
    is_other = path.exists() and not path.is_file()  # a folder; a device would be replaced by a file
    places = [path.parent, path] if path.exists() else [path.parent]
    if is_other or not all(os.access(place, os.W_OK) for place in places):
        raise UserError(f"{path}: cannot be written there. {OTHER}")


def _check_apart(path: Path, source: str) -> None:
    if path.exists() and _is_same_file(path, source):
        raise UserError(f"{path}: is the data itself, which stays as it is. {OTHER}")
    folder = Path(source)
    if folder.is_dir() and path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path}: lies in {source}, which is the data. Name a file elsewhere.")


def _is_same_file(path: Path, source: str) -> bool:
    if source != "-":
        return Path(source).exists() and path.samefile(source)
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdin.fileno()))  # predict RUN -o a.csv < a.csv
    except (OSError, ValueError, AttributeError):  # closed, or no file at all
        return False
