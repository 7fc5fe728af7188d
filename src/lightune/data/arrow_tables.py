"""What every table must have, Parquet, and Arrow tables from wherever with their plain values made text."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lightune.data.files import MAX_BYTES, MAX_LINE_BYTES, MIB, check_size, first_bytes, open_bytes
from lightune.data.scratch import CHUNK_ROWS, mapped, scratch_file
from lightune.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


def check_names(path: Path, names: list[str]) -> list[str]:
    """The column names; a nameless one is called unnamed_3 after its place, so that it can be chosen."""
    named = [name if name.strip() else f"unnamed_{place}" for place, name in enumerate(names, 1)]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise UserError(f"{path}: two columns have the same name: {twice}. Rename one of each pair.")
    return named


def check_rows(path: Path, table: pa.Table) -> pa.Table:
    """The table itself. Raises UserError if it has no rows."""
    if not table.num_rows:
        raise UserError(f"{path}: no rows, only the column names {table.column_names}. Add rows.")
    return table


# Parquet


def accepts_parquet(source: str) -> bool:
    named = Path(source).suffix.lower() == ".parquet" and os.path.isfile(source)
    return named or first_bytes(source).startswith(b"PAR1")


def parquet_tables(path: Path) -> Iterator[pa.Table]:
    """The rows as they were written, some at a time, types and schema notes included; first a table of none."""
    import pyarrow as pa
    from pyarrow import parquet

    with _unzipped(path) as stream:
        _check_parquet(path, stream)
        try:
            with parquet.ParquetFile(mapped(stream)) as file:
                _check_parquet_size(path, file.metadata)
                check_names(path, file.schema_arrow.names)
                yield file.schema_arrow.empty_table()
                for batch in file.iter_batches(CHUNK_ROWS):
                    batch.validate(full=True)
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            seen = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: damaged Parquet ({seen}). Write or copy it again.") from None


@contextmanager
def _unzipped(path: Path) -> Iterator[IO[bytes]]:
    """The file, or a scratch file with its contents where it is zipped: Parquet is read from its end."""
    with open_bytes(path) as stream:
        if not isinstance(stream, gzip.GzipFile):
            yield stream
            return
        with scratch_file() as contents:
            for chunk in iter(lambda: stream.read(MIB), b""):
                check_size(path, contents.tell() + len(chunk), 0, MAX_BYTES, MAX_LINE_BYTES)
                contents.write(chunk)
            yield contents


def _check_parquet(path: Path, stream: IO[bytes]) -> None:
    stream.seek(0)
    first = stream.read(4)
    stream.seek(max(0, stream.seek(0, io.SEEK_END) - 4))
    last = stream.read(4)
    stream.seek(0)
    if not first:
        raise UserError(f"{path}: the file is empty (0 bytes). Write it again.")
    if first != b"PAR1":
        raise UserError(f"{path}: not Parquet, it starts with {first!r}. Rename it after what it is.")
    if last != b"PAR1":
        raise UserError(f"{path}: truncated Parquet, the end is missing. Copy or download it again.")


def _check_parquet_size(path: Path, metadata: Any) -> None:
    total = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    check_size(path, total, 0, MAX_BYTES, MAX_LINE_BYTES)


# Plain values as text


def class_names_of(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> names of its integer classes, as the `datasets` library notes them in a schema."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        # a list of classes names them in what it is a list of
        items = {name: f.get("feature", f) if isinstance(f, dict) else f[0] for name, f in features.items()}
        labels = {name: f for name, f in items.items() if f.get("_type") == "ClassLabel" and name in schema.names}
        return {name: [str(label) for label in feature["names"]] for name, feature in labels.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # a note by another tool, or none: the column stays what it is


def plain_table(source: str, table: pa.Table, class_names: dict[str, list[str]]) -> pa.Table:
    """The table with numbers, booleans, dates and named classes as text; nested and binary columns stay."""
    import pyarrow as pa

    columns = []
    for name in table.column_names:
        column = table.column(name)
        named = name in class_names and pa.types.is_integer(column.type)
        columns.append(_named(source, column, class_names[name]) if named else _text(column))
    return pa.table(columns, names=table.column_names)


def _named(source: str, column: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pc.if_else(pc.less(column, 0), None, column)  # -1 is how `datasets` writes "no label"
    high = pc.max(ids).as_py()
    if high is not None and high >= len(names):
        raise UserError(f"{source}: class id {high}, but only {len(names)} class names: {names}. Correct the file.")
    return pa.chunked_array([pa.array(names, pa.string()).take(ids.combine_chunks())])


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not _has_text(kind):
        return column
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column.cast(kind)), None, column.cast(kind))
    return column.cast(kind).cast(pa.string())


def _has_text(kind: pa.DataType) -> bool:
    """Whether values of this type are text, or can be told as text: by the type alone, since chunks must agree."""
    import pyarrow as pa

    tests = (pa.types.is_nested, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    if any(is_such(kind) for is_such in tests) or isinstance(kind, pa.BaseExtensionType):
        return False
    one = pa.nulls(1, kind) if not pa.types.is_timestamp(kind) else pa.array([0], pa.int64()).cast(kind)
    try:
        one.cast(pa.string())  # a time zone may be unknown
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    return not pa.types.is_binary_view(kind)
