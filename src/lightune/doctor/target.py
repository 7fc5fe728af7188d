"""Where the doctor may write, and a way to write there all or nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lightune.destination import OTHER, check_destination
from lightune.errors import UserError


def check_target(path: Path, endings: Sequence[str], sources: Sequence[str]) -> None:
    """UserError if the file or the log of its changes cannot be written, or if one of them is data that is read."""
    if str(path) == "-":
        raise UserError("-o -: the findings come to standard output with --json, a repaired copy needs a file name.")
    check_destination(path, endings, sources)
    check_destination(log_of(path), [".jsonl"], sources)


def log_of(path: Path) -> Path:
    """Where the changes of a repaired copy are written down."""
    return path.with_name(path.name + ".changes.jsonl")


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
