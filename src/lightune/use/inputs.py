"""Rows to label: any source that training reads, and standard input."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lightune.data.arrow_tables import accepts_parquet, parquet_tables
from lightune.data.columns import TextColumns
from lightune.data.csv_tables import delimiter_of
from lightune.data.examples import examples, is_unlabelled
from lightune.data.files import MAX_BYTES, MAX_LINE_BYTES, MIB, check_text
from lightune.data.framing import join_pair
from lightune.data.scratch import CHUNK_ROWS, scratch_folder, told_without_room
from lightune.data.sources import Options, kind_of, read, split_for
from lightune.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from lightune.records import Corpus

STDIN = "standard input"
Row = dict[str, Any]


@dataclass(frozen=True)
class Input:
    """Rows to label. kind: csv, tsv or jsonl, for standard output, which has no ending.

    chunks(kind): rows as an output of that kind holds them, with their texts. schema: of the columns in Parquet.
    """

    kind: str
    columns: Sequence[str]
    chunks: Callable[[str], Iterator[tuple[list[Row], list[str]]]]
    schema: Callable[[], pa.Schema]
    notes: tuple[str, ...] = ()


@contextmanager
def open_input(data: str, wanted: TextColumns, how: Options, *, given: bool) -> Iterator[Input]:
    """The rows of a source, or of standard input; given: the user named the text columns."""
    if data != "-":
        yield _table_input(data, wanted, how)
        return
    if sys.stdin is None:
        raise UserError(f"{STDIN}: is closed. Name a file.")
    start = _first_line(sys.stdin.buffer)
    if not given and how.encoding is None and _is_text_line(start, wanted, how):
        yield _line_input(start, sys.stdin.buffer, wanted)
        return
    with ExitStack() as stack:
        with told_without_room():
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch_folder())), "stdin")
            with path.open("wb") as file:
                file.write(start)
                shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield _copied_input(path, wanted, how, given=given)
        except UserError as error:
            message = re.sub(re.escape(str(path)) + r"(\.\w+)?", STDIN, str(error))
            raise UserError(message) from None


def _first_line(stream: BinaryIO) -> bytes:
    """Up to and including the first line that is not blank; everything if there is none."""
    start = b""
    while not start.strip(b"\xef\xbb\xbf \t\r\n") and (line := stream.readline(MAX_LINE_BYTES)):
        start += line
    return start


def _is_text_line(start: bytes, wanted: TextColumns, how: Options) -> bool:
    """Whether standard input begins with a text in UTF-8: nothing zipped, no table, no JSON."""
    try:
        line = start.decode("utf-8-sig").strip("\ufeff\r\n")
    except UnicodeDecodeError:
        return False
    plain = bool(line.strip()) and not start.startswith(b"\x1f\x8b") and "\0" not in line
    return plain and _kind_of_lines(line.strip(), wanted, how.delimiter) is None


def _copied_input(path: Path, wanted: TextColumns, how: Options, *, given: bool) -> Input:
    """What was piped and is no plain UTF-8 lines: JSON, a table whose header names the text, other encodings."""
    if accepts_parquet(str(path)):
        return _piped_table(path, "parquet", wanted, how)
    file = check_text(path, how.encoding)
    with file.lines() as lines:
        start = next((line for line in lines if line.strip("\ufeff \t\r\n")), "").strip("\ufeff\r\n")
    kind = _kind_of_lines(start.strip(), wanted, how.delimiter)
    if kind is not None:
        return _piped_table(path, kind, wanted, how)
    if given:
        raise UserError(f"{STDIN}: its first line {start[:60]!r} is no header that names {sorted(wanted.names)}.")
    with file.lines(newline="\n") as lines:
        return _line_input(b"", io.BytesIO("".join(lines).encode()), wanted)


def _piped_table(path: Path, kind: str, wanted: TextColumns, how: Options) -> Input:
    table = _table_input(str(path.rename(path.with_suffix(f".{kind}"))), wanted, how)
    return replace(table, notes=(f"{STDIN}: read as {kind} with the columns {list(table.columns)}",))


def _kind_of_lines(line: str, wanted: TextColumns, delimiter: str | None) -> str | None:
    """json or csv by the first line; None: every line is a text."""
    if re.match(r'\{\s*($|["}])|\[\s*($|[{\]])', line):
        return "json"
    marks = ",\t;|" if delimiter is None else delimiter_of(delimiter)
    return "csv" if any(wanted.names <= set(_cells(line, mark)) for mark in marks) else None


def _cells(line: str, mark: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:  # a line longer than a cell may be, a quote that is not closed
        return []


def _line_input(start: bytes, stream: BinaryIO, wanted: TextColumns) -> Input:
    """Every line is one text, or two with a tab between them; a lone \\r does not end one."""
    import pyarrow as pa

    names = ["text"] if wanted.pair is None else ["text", "text_pair"]

    def chunks(kind: str) -> Iterator[tuple[list[Row], list[str]]]:
        n_lines = 0
        for lines in _lines(start, stream):
            rows = [_row_of(line, names, n_lines + i) for i, line in enumerate(lines, start=1)]
            n_lines += len(lines)
            yield rows, lines if wanted.pair is None else [join_pair(*row.values()) for row in rows]

    note = f"{STDIN}: read as " + (
        "one text a line" if wanted.pair is None else "a pair a line, a tab between its texts"
    )
    return Input("csv", names, chunks, lambda: pa.schema([(name, pa.string()) for name in names]), (note,))


def _row_of(line: str, names: list[str], number: int) -> Row:
    """The texts of a line by their names; of a blank line, blank ones. UserError unless there are as many."""
    if len(names) == 1 or not line.strip():
        return dict.fromkeys(names, line)
    texts = line.split("\t")
    if len(texts) != len(names):
        raise UserError(
            f"{STDIN}:{number}: {len(texts) - 1} tabs in {line[:60]!r}; this classifier reads pairs. Put one tab "
            f"between the two texts of each line, or pipe JSON lines with both."
        )
    return dict(zip(names, texts, strict=True))


def _lines(start: bytes, stream: BinaryIO) -> Iterator[list[str]]:
    """The lines that have arrived, as soon as they have. UserError if one is not UTF-8 or endless."""
    n_lines, rest = 0, bytearray()
    for arrived in itertools.chain([start], _arrivals(stream)):
        rest += arrived
        if len(rest) - 1 - rest.rfind(b"\n", len(rest) - len(arrived)) > MAX_LINE_BYTES:
            raise UserError(f"{STDIN}:{n_lines + 1}: a line is longer than {MAX_LINE_BYTES // MIB} MiB.")
        if b"\n" not in arrived:
            continue
        *whole, rest = rest.split(b"\n")
        for first in range(0, len(whole), CHUNK_ROWS):
            some = whole[first : first + CHUNK_ROWS]
            yield [_text_of(line, n_lines + i) for i, line in enumerate(some, start=1)]
            n_lines += len(some)
    if rest:
        yield [_text_of(rest, n_lines + 1)]


def _arrivals(stream: BinaryIO) -> Iterator[bytes]:
    try:
        yield from iter(lambda: stream.read1(MIB), b"")  # type: ignore[attr-defined]
    except OSError as error:
        raise UserError(f"{STDIN}: cannot be read ({error.strerror}).") from None


def _text_of(line: bytes | bytearray, number: int) -> str:
    try:
        return line.decode("utf-8").strip("\ufeff\r\n")
    except UnicodeDecodeError as error:
        seen = f"0x{line[error.start]:02x}"
        fix = "Set data.encoding to the one it was written in, for example cp1252."
        raise UserError(f"{STDIN}:{number}: not UTF-8: byte {error.start} is {seen}. {fix}") from None


def _table_input(data: str, wanted: TextColumns, how: Options) -> Input:
    """A source as training reads it, with the same checks."""
    import pyarrow as pa

    corpus = read(data, encoding=how.encoding, delimiter=how.delimiter, offline=how.offline)
    split = scored_split(corpus)
    table, kind, path = corpus.tables[split], kind_of(data), Path(data)
    examples(table.slice(0, 0), text=wanted.text, label=None, pair=wanted.pair)  # its columns are there

    def rows_for(output: str) -> Iterator[Row]:
        if output == "jsonl" and kind in ("json", "jsonl"):
            return _json_rows(path, how.encoding, kind)
        typed = kind == "parquet" and output in ("parquet", "jsonl")
        parts = parquet_tables(path) if typed else [table]
        return (row for part in parts for batch in part.to_batches(CHUNK_ROWS) for row in batch.to_pylist())

    def schema() -> pa.Schema:
        return (next(parquet_tables(path)) if kind == "parquet" else table).schema

    def chunks(output: str) -> Iterator[tuple[list[Row], list[str]]]:
        rows = rows_for(output)
        for start in range(0, table.num_rows, CHUNK_ROWS):
            part = table.slice(start, CHUNK_ROWS)
            texts = list(examples(part, text=wanted.text, label=None, pair=wanted.pair)[0].texts)
            try:
                some = list(islice(rows, CHUNK_ROWS))
            except (pa.ArrowException, OverflowError, ValueError) as error:  # a date in the year 150000, 1e999
                raise UserError(f"{data}: a value cannot be kept ({error}). Leave its column out.") from None
            yield some, texts

    written_as = "jsonl" if kind in ("json", "jsonl") else "tsv" if ".tsv" in path.suffixes else "csv"
    notes = (f"{data}: its split {split}",) if len(corpus.tables) > 1 else ()
    return Input(written_as, table.column_names, chunks, schema, notes)


def _json_rows(path: Path, encoding: str | None, kind: str) -> Iterator[Row]:
    """The objects as they stand in the file, read as `json_tables` reads them; a number stays a number.

    Equal in value, that is: 1.10 becomes 1.1.
    """
    with check_text(path, encoding, max_line=MAX_BYTES).lines() as lines:
        if kind == "json":
            yield from json.loads(lines.read().removeprefix("\ufeff"), parse_float=_float)
            return
        stripped = (line.strip("\ufeff\r\n") for line in lines)
        yield from (json.loads(line, parse_float=_float) for line in stripped if line.strip())


def _float(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"{number} is too large")
    return value


def scored_split(corpus: Corpus, label: str | None = None) -> str:
    """The test split, else the dev split, else the first; one that nobody labelled (in `label`) comes last."""
    found = [split_for("test", corpus), split_for("dev", corpus), *corpus.tables]
    names = [name for name in found if name is not None]
    labelled = [name for name in names if label is None or not is_unlabelled(corpus.tables[name], label)]
    return (labelled or names)[0]
