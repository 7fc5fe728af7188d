"""What may be opened at all, and text files: encoding and size are checked once, before any parser runs.

Text is opened unzipped where its first bytes say gzip, and walked in constant memory.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import itertools
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lightune.errors import UserError, near_match

MIB = 2**20
MAX_BYTES = 8 * 2**30  # decompressed
MAX_LINE_BYTES = 64 * MIB
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".psv")
FILE_SUFFIXES = (*JSON_SUFFIXES, *TABLE_SUFFIXES, ".parquet", ".gz", ".zip", ".xls", ".xlsx")

_MAX_RATIO = 100  # text compresses 3 to 20 times, a gzip bomb 1,000 times
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


# Paths: what may be opened at all


class WrongEncoding(UserError):
    """A file of text is not in the encoding that was expected; suggestion: the one it looks like, if any."""

    def __init__(self, message: str, suggestion: str | None):
        super().__init__(message)
        self.suggestion = suggestion


def _looks_like_path(source: str) -> bool:
    path = Path(source)
    named = path.suffix.lower() in FILE_SUFFIXES or (
        "/" in source and bool(re.fullmatch(r"\.[a-zA-Z]+", path.suffix))
    )
    spelled = source.startswith(("/", "./", "../", "~")) or source.endswith("/") or "\\" in source
    beside = "/" in source and bool(path.suffix) and path.parent.is_dir()
    return named or spelled or beside


def check_exists(source: str) -> None:
    """Refuses an empty name, a broken link, a device and a file that is not there; opens nothing."""
    if not source.strip() or "\0" in source:
        raise UserError(f"the data source is {source!r}. Name a file, a folder, embedded:imdb or a Hub data set.")
    check_name(source)
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


def check_name(name: str) -> None:
    """UserError for a file's name that is not text: it could be written into no report."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name!r}: the name is not UTF-8. Rename it.") from None


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
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unzipped where its first bytes say gzip. Damage and rights become UserError."""
    check_exists(str(path))
    try:
        with path.open("rb") as raw:
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            with gzip.open(raw) if zipped else raw as stream:
                yield stream  # type: ignore[misc]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged gzip ({error}). Copy or download it again.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Check its rights.") from None


def first_bytes(source: str) -> bytes:
    """The first 64 KiB of a regular file, unzipped; b"" for everything else."""
    if not os.path.isfile(source):
        return b""
    with open_bytes(Path(source)) as stream:
        return stream.read(2**16)


def sha256(path: Path) -> str:
    """Of the file's bytes as they lie on disk, zipped or not."""
    with path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


# Text files: encoding and size are checked once, in constant memory, before any parser runs


@dataclass(frozen=True)
class TextFile:
    path: Path
    encoding: str
    has_quotes: bool

    @contextmanager
    def lines(self, newline: str = "") -> Iterator[io.TextIOWrapper]:
        """Decoded, line ends untouched, so that a newline inside a cell stays what it was.

        newline: what ends a line, as for `open`; "" is any of \\n, \\r\\n and \\r.
        """
        with (
            open_bytes(self.path) as stream,
            io.TextIOWrapper(stream, encoding=self.encoding, newline=newline) as lines,
        ):
            yield lines


def check_text(
    path: Path, encoding: str | None, *, max_bytes: int = MAX_BYTES, max_line: int = MAX_LINE_BYTES
) -> TextFile:
    """Walks the file once: it can be decoded, is within its limits, and holds quotes or not."""
    codec = _codec(path, encoding)
    decoder = codecs.getincrementaldecoder(codec)()
    total, line, has_quotes = 0, 0, False
    with open_bytes(path) as stream:
        _check_kind(path, stream.peek(16), codec)  # type: ignore[attr-defined]
        for chunk in itertools.chain(iter(lambda: stream.read(MIB), b""), [b""]):
            _decode(path, decoder, chunk, total, codec)
            total += len(chunk)
            line = len(chunk) - 1 - chunk.rfind(b"\n") if b"\n" in chunk else line + len(chunk)
            has_quotes = has_quotes or b'"' in chunk
            check_size(path, total, line, max_bytes, max_line)
    if not total:
        raise UserError(f"{path}: the file is empty (0 bytes). Give a file with a header and at least two rows.")
    return TextFile(path, codec, has_quotes)


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


def check_size(path: Path, total: int, line: int, max_bytes: int, max_line: int) -> None:
    """Raises UserError if the text of `total` bytes, or the line of `line` bytes, is over its limit."""
    if total > max_bytes:
        raise UserError(f"{path}: more than {max_bytes / 2**30:g} GiB of text. Split it, or save it as Parquet.")
    if total > MAX_LINE_BYTES and total > _MAX_RATIO * path.stat().st_size:
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
        hint, suggestion = _encoding_hint(seen, error.start, codec)
        message = f"{path}:{_line_of(path, offset)}: not {name}: byte {offset} is 0x{seen[error.start]:02x}. {hint}"
        raise WrongEncoding(message, suggestion) from None
    except UnicodeError as error:  # utf-16 without its byte order mark, and the like
        fix = "Set data.encoding to the one it was written in, or leave it out for UTF-8."
        raise UserError(f"{path}: not {codec}: {error}. {fix}") from None


def _line_of(path: Path, offset: int) -> int:
    """1-based line of a byte, for \\n, \\r\\n and lone \\r alike."""
    feeds = returns = 0
    with open_bytes(path) as stream:
        while offset > 0 and (chunk := stream.read(min(MIB, offset))):
            offset -= len(chunk)
            feeds, returns = feeds + chunk.count(b"\n"), returns + chunk.count(b"\r")
    return 1 + (feeds or returns)


def _encoding_hint(seen: bytes, start: int, codec: str) -> tuple[str, str | None]:
    """What to do, and the encoding that it looks like, if it looks like one."""
    sample = seen[max(0, start - 2000) : start + 2000]
    # Western text has a few bytes above 127; in Cyrillic, Greek or Chinese encodings most letters are.
    western = sum(byte > 127 for byte in sample) < 0.3 * len(sample)
    if codec != "utf-8-sig" and _decodes(seen[start:], "utf-8"):
        return 'It looks like utf-8; set data.encoding = "utf-8".', "utf-8"
    if codec != "cp1252" and western and _decodes(sample, "cp1252"):
        return 'It looks like cp1252; set data.encoding = "cp1252".', "cp1252"
    return "Set data.encoding to the one it was written in, for example cp1251, gb18030 or shift_jis.", None


def _decodes(seen: bytes, codec: str) -> bool:
    try:
        codecs.getincrementaldecoder(codec)().decode(seen)
    except UnicodeDecodeError:
        return False
    return True
