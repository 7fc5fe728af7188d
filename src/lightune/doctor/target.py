"""Where the doctor may write, and a way to write there all or nothing."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lightune.errors import UserError

OTHER = "Name another file with -o."


def check_target(path: Path, endings: Sequence[str], sources: Sequence[str]) -> None:
    """Before any work: UserError if the file cannot be written, or if it is one that was read or lies among such.

    endings: of the formats that can be written; sources: the files and folders that are read.
    """
    if str(path) == "-":
        raise UserError("-o -: the findings come to standard output with --json, a repaired copy needs a file name.")
    if path.suffix not in endings:
        kind = path.suffix or "a file without an ending"
        raise UserError(f"{path}: cannot be written as {kind}. Use {', '.join(endings)}.")
    try:
        for each in (path, log_of(path)):
            _check_place(each)
            for source in sources:
                _check_apart(each, Path(source))
    except OSError as error:  # a name that is too long
        raise UserError(f"{str(path)[:80]}: cannot be written ({error.strerror}). {OTHER}") from None


def log_of(path: Path) -> Path:
    """Where the changes of a repaired copy are written down."""
    return path.with_name(path.name + ".changes.jsonl")


def _check_place(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f"{path}: its folder does not exist. Make it first.")
    is_other = path.exists() and not path.is_file()  # a folder; a device would be replaced by a file
    if is_other or not os.access(folder, os.W_OK):
        raise UserError(f"{path}: cannot be written there. {OTHER}")


def _check_apart(path: Path, source: Path) -> None:
    if not source.exists():
        return
    if path.exists() and path.samefile(source):
        raise UserError(f"{path}: is the data itself. Name another file: the original stays as it is.")
    if source.is_dir() and path.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{path}: lies in {source}, which is the data. Name a file elsewhere.")


@contextmanager
def written(*paths: Path) -> Iterator[list[Path]]:
    """New files that take the places of `paths` at the end, and are gone if anything went wrong.

    UserError for what the system refuses.
    """
    parts = [path.with_name(f".lightune.{secrets.token_hex(8)}{path.suffix}") for path in paths]
    with ExitStack() as stack:
        for part in parts:
            stack.callback(part.unlink, missing_ok=True)
        try:
            yield parts
            for part, path in zip(parts, paths, strict=True):
                part.replace(path)
        except OSError as error:
            raise UserError(f"{paths[0]}: cannot be written ({error.strerror}). {OTHER}") from None
