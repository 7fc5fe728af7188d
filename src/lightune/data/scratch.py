"""What is larger than memory lies in a nameless scratch file that is mapped, and that ends with the process."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from lightune.data.files import MIB
from lightune.errors import GateError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

CHUNK_ROWS = 2048
HELD_BYTES = 64 * MIB  # what is no larger needs no file

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT}
_NO_ROOM |= {errno.EFBIG, errno.ENOMEM, errno.ENODEV, errno.EMFILE, errno.ENFILE}  # limits of the process


def scratch_folder() -> str:
    """$TMPDIR, else /var/tmp: many systems keep /tmp in memory. GateError if there is none."""
    if not {"TMPDIR", "TEMP", "TMP"} & set(os.environ) and os.access("/var/tmp", os.W_OK):
        return "/var/tmp"
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        raise GateError("no folder for scratch files can be written. Set TMPDIR to one.") from None


@contextmanager
def scratch_file() -> Iterator[IO[bytes]]:
    """A file without a name, gone when it is closed and unmapped. GateError where there is no room for it."""
    with told_without_room(), tempfile.TemporaryFile(dir=scratch_folder()) as file:
        yield file


@contextmanager
def told_without_room() -> Iterator[None]:
    """GateError for what is refused to a scratch file that is written inside."""
    folder = scratch_folder()
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        fix = "Set TMPDIR to a folder with room for the data, unzipped."
        raise GateError(f"{folder}: no scratch file can be written ({error.strerror}). {fix}") from None


def mapped(file: IO[bytes]) -> pa.BufferReader:
    """The file's bytes without a copy in memory, also after it was closed."""
    import pyarrow as pa

    return pa.BufferReader(pa.py_buffer(_map(file)))


def _map(file: IO[bytes]) -> mmap.mmap:
    file.flush()
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def gathered(tables: Iterable[pa.Table]) -> pa.Table:
    """The rows of all tables as one, in bounded memory; a column that a table lacks is missing (null) there.

    GateError if a large one finds no room.
    """
    import pyarrow as pa

    held: list[pa.Table] = []
    n_bytes = 0
    for table in (more := iter(tables)):
        held.append(table)
        n_bytes += table.nbytes
        if n_bytes > HELD_BYTES:
            held = _put_aside(itertools.chain(held, more))
    return pa.concat_tables(held, promote_options="default")


def _put_aside(tables: Iterable[pa.Table]) -> list[pa.Table]:
    """The same tables from a scratch file, where each is an Arrow stream of its own."""
    import pyarrow as pa

    with scratch_file() as file:
        for table in tables:
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
        contents = mapped(file)
    parts = []
    while contents.tell() < contents.size():
        parts.append(pa.ipc.open_stream(contents).read_all())
    return parts


def rows_at(table: pa.Table, places: NDArray[np.int64]) -> pa.Table:
    """The rows at `places` (M,), in that order, in bounded memory.

    Arrow's `take` copies every column whole before it takes anything, and fails on one of more than 2 GiB of text.
    GateError if many rows find no room.
    """
    import pyarrow as pa

    if not len(places):
        return table.slice(0, 0)
    parts = (places[start : start + CHUNK_ROWS] for start in range(0, len(places), CHUNK_ROWS))
    return gathered(pa.concat_tables(list(_runs(table, part))).combine_chunks() for part in parts)


def _runs(table: pa.Table, places: NDArray[np.int64]) -> Iterator[pa.Table]:
    """The rows at `places`, those that follow each other at once."""
    for run in np.split(places, np.flatnonzero(np.diff(places) != 1) + 1):
        yield table.slice(run[0], len(run))


def joined(arrays: Iterable[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    """One array (N,) of all of them, one after the other, in bounded memory; a mapped one cannot be written to.

    GateError if a large one finds no room.
    """
    held: list[NDArray[Any]] = []
    n_bytes = 0
    for array in (more := iter(arrays)):
        held.append(array.astype(dtype, copy=False))
        n_bytes += held[-1].nbytes
        if n_bytes > HELD_BYTES:
            with scratch_file() as file:
                for part in itertools.chain(held, more):
                    file.write(part.astype(dtype, copy=False).data)
                return np.frombuffer(_map(file), dtype)
    return np.concatenate(held) if held else np.zeros(0, dtype)
