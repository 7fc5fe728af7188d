"""CSV files as Arrow tables: pyarrow reads them; the standard library's reader says which line is wrong."""

from __future__ import annotations

import csv
import io
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightune.data.arrow_tables import check_names, check_rows
from lightune.data.files import MAX_LINE_BYTES, MIB, TABLE_SUFFIXES, TextFile
from lightune.data.scratch import gathered
from lightune.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


def accepts_csv(source: str) -> bool:
    return os.path.isfile(source)


def csv_table(file: TextFile, delimiter: str | None) -> pa.Table:
    """Every cell as a string. Raises UserError with the line of the first row that is not as the header says."""
    delimiter = _delimiter(file, delimiter)
    header = _csv_header(file, delimiter)
    if len(header) == 1 and not file.path.name.removesuffix(".gz").lower().endswith(TABLE_SUFFIXES):
        raise UserError(
            f"{file.path}: cannot tell what this is; its first line is {header[0][:60]!r}. "
            f"Use a name ending in .csv, .tsv, .jsonl or .parquet, or set data.delimiter."
        )
    quoted = _check_quotes(file, delimiter, len(header))
    return check_rows(file.path, gathered(parse_csv(file, delimiter, header, quoted)))


def delimiter_of(typed: str) -> str:
    """The character that was meant: a tab cannot be typed everywhere. UserError if it cannot separate cells."""
    meant = "\t" if typed in (r"\t", "tab") else typed
    if len(meant) != 1 or not meant.isascii() or meant in '"\r\n':
        raise UserError(f"data.delimiter = {typed!r}: set one character: ',', ';', '|' or 'tab'.")
    return meant


def _delimiter(file: TextFile, typed: str | None) -> str:
    """What separates the cells of the header: the typed character, else the most frequent of the four."""
    with file.lines() as lines:
        line = next((line for line in lines if line.strip("\ufeff\r\n")), "")
    bare = re.sub(r'"[^"]*"', "", line)
    # A tab is never part of a column's name, the other three may be.
    sniffed = "\t" if "\t" in bare else max(",;|", key=bare.count)
    if typed is None:
        return sniffed if sniffed in bare or ".tsv" not in file.path.suffixes else "\t"
    typed = delimiter_of(typed)
    if typed not in bare and sniffed in bare:
        raise UserError(
            f"{file.path}: no {typed!r} in the header, it looks {DELIMITERS[sniffed]}-separated: "
            f"{line[:60]!r}. "
            f"Set data.delimiter = {sniffed!r}, or leave it out."
        )
    return typed


@contextmanager
def _rows(file: TextFile, delimiter: str, *, quoted: bool = True) -> Iterator[Any]:
    """A strict csv.reader over the file; the limit on a cell is global to that module, so it is put back."""
    before = csv.field_size_limit(MAX_LINE_BYTES)
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    try:
        with file.lines() as lines:
            yield csv.reader(lines, delimiter=delimiter, strict=True, quoting=quoting)
    finally:
        csv.field_size_limit(before)


def _csv_header(file: TextFile, delimiter: str) -> list[str]:
    with _rows(file, delimiter) as rows:
        try:
            header = next((row for row in rows if row and row != ["\ufeff"]), None)
        except csv.Error as error:
            raise UserError(
                f"{file.path}:{rows.line_num}: the header has an open quote ({error}). Close it."
            ) from None
    if not header or not any(cell.strip("\ufeff ") for cell in header):
        raise UserError(f"{file.path}: the file is empty but for blank lines. Give it a header and rows.")
    return [header[0].removeprefix("\ufeff"), *header[1:]]


def _check_quotes(file: TextFile, delimiter: str, n_columns: int) -> bool:
    """Whether quotes quote: in a tab-separated file where they do not pair up, they are plain characters."""
    if not file.has_quotes:
        return True
    problem = _csv_problem(file, delimiter, n_columns)
    if problem and delimiter == "\t" and not _csv_problem(file, delimiter, n_columns, quoted=False):
        return False
    if problem:
        raise UserError(problem)
    return True


def _csv_problem(file: TextFile, delimiter: str, n_columns: int, *, quoted: bool = True) -> str | None:
    """The first row of a wrong length or with a quote that swallows a line, in words; None if there is none.

    A quote pyarrow would close somewhere in a later row merges rows without an error: only this finds it.
    """
    with _rows(file, delimiter, quoted=quoted) as rows:
        while True:
            start = rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as error:
                # `"so" she said,pos`: within one line, pyarrow and pandas read it and lose no row.
                if rows.line_num == start and "end of data" not in str(error):
                    continue
                return _unclosed(file, start)
            if row is None:
                return None
            if row and len(row) != n_columns:
                return _ragged(file, start, row, n_columns, delimiter)


def _unclosed(file: TextFile, line: int) -> str:
    with file.lines() as lines:
        seen = next(itertools.islice(lines, line - 1, None), "")
    return (
        f"{file.path}:{line}: a quote opens in this row and is not closed: {seen[:60]!r}. "
        f'Close it, or write a quote inside a cell twice ("").'
    )


def _ragged(file: TextFile, line: int, row: list[str], n_columns: int, delimiter: str) -> str:
    return (
        f"{file.path}:{line}: the row has {len(row)} cells, the header {n_columns}: "
        f"{delimiter.join(row)[:60]!r}. "
        f"Put cells that hold a {DELIMITERS.get(delimiter, repr(delimiter))} in double quotes, "
        f"or set data.delimiter."
    )


def parse_csv(file: TextFile, delimiter: str, header: list[str], quoted: bool) -> Iterator[pa.Table]:
    """The rows, some at a time, as strings; no value is taken for missing ("NA", "null" and "" stay what they are).

    A row that is longer than a block of the parser makes all blocks longer: it holds some 30 of them at once.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = check_names(file.path, header)
    with _rows(file, delimiter, quoted=quoted) as rows:  # where quotes do not quote, they are part of a name
        written = next(row for row in rows if row and row != ["\ufeff"])
    parse = arrow_csv.ParseOptions(
        delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
    )
    # a second byte order mark, which some editors add, stays in pyarrow's name of the first column
    every = dict.fromkeys([*header, *written, written[0].removeprefix("\ufeff"), f"\ufeff{header[0]}"], pa.string())
    as_text = arrow_csv.ConvertOptions(column_types=every, null_values=[], strings_can_be_null=False)
    n_rows = 0
    for block_size in (MIB, 4 * MIB, 16 * MIB, MAX_LINE_BYTES):
        blocks = arrow_csv.ReadOptions(block_size=block_size)
        try:
            with file.lines() as lines:
                reader = arrow_csv.open_csv(_Pieces(lines), blocks, parse, as_text)
                yield reader.schema.empty_table().rename_columns(names)
                n_skipped = n_rows
                for batch in reader:
                    new = batch.slice(min(n_skipped, batch.num_rows))
                    n_skipped -= batch.num_rows - new.num_rows
                    n_rows += new.num_rows
                    yield pa.Table.from_batches([new]).rename_columns(names)
            return
        except pa.ArrowInvalid as error:
            reason = error
    problem = _csv_problem(file, delimiter, len(header), quoted=quoted)
    raise UserError(problem or f"{file.path}: not readable as CSV ({reason}). Save it again.")


class _Pieces(io.RawIOBase):
    """Text as bytes in UTF-8, never cut between \\r and \\n: there pyarrow would drop the \\n, in a cell too."""

    def __init__(self, lines: io.TextIOWrapper):
        self._lines = lines
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) <= size and (text := self._lines.read(size)):
            self._rest += text.encode()
        at = size - 1 if self._rest[size - 1 : size + 1] == b"\r\n" else size
        piece, self._rest = self._rest[:at], self._rest[at:]
        return piece
