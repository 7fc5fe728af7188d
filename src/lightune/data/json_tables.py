"""JSON files as Arrow tables: one object per line, or an array of objects."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lightune.data.files import JSON_SUFFIXES, check_text, first_bytes
from lightune.data.scratch import CHUNK_ROWS, gathered
from lightune.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_ARRAY_BYTES = 2**30  # a JSON array is parsed in one piece

_Kinds = dict[str, str]  # kind of value in a column -> where it first stood


class _Number(str):
    """The text of a JSON number, so that 1, "1" and 1.0 can still be told apart."""


def _json_start(source: str, opening: bytes, inside: bytes) -> bool:
    head = first_bytes(source).replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if Path(source.removesuffix(".gz")).suffix.lower() in JSON_SUFFIXES:
        return head.startswith(opening)
    return re.match(re.escape(opening) + rb"\s*[" + inside + rb"]", head) is not None


def accepts_json(source: str) -> bool:
    return _json_start(source, b"[", rb"{\]")


def accepts_jsonl(source: str) -> bool:
    named = Path(source.removesuffix(".gz")).suffix.lower() in JSON_SUFFIXES and os.path.isfile(source)
    return named or _json_start(source, b"{", rb'"}')


def json_table(path: Path, encoding: str | None) -> pa.Table:
    """The objects of an array, one row each."""
    file = check_text(path, encoding, max_bytes=_MAX_ARRAY_BYTES, max_line=_MAX_ARRAY_BYTES)
    with file.lines() as lines:
        rows = _parse_json(path, lines.read().removeprefix("\ufeff"), 1)
    return _object_table(path, ((f"row {number}", row) for number, row in enumerate(rows, 1)))


def jsonl_table(path: Path, encoding: str | None) -> pa.Table:
    """The objects of a file that has one on each line; blank lines are passed over."""
    with check_text(path, encoding).lines() as lines:
        numbered = ((number, line.strip("\ufeff\r\n")) for number, line in enumerate(lines, 1))
        rows = ((f"line {number}", _parse_json(path, line, number)) for number, line in numbered if line.strip())
        return _object_table(path, rows)


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


def _object_table(path: Path, rows: Iterator[tuple[str, Any]]) -> pa.Table:
    """A table of the objects' keys; a key that an object lacks is missing (null) there.

    rows: (where, value) pairs, where being "line 3" or "row 3" for the messages. A column that is not plain text
    says why in its field's metadata: lists, objects, several kinds. `columns` refuses to use one.
    """
    import pyarrow as pa

    kinds: dict[str, _Kinds] = {}
    table = gathered(_object_tables(path, rows, kinds))
    fields = [_field(name, kinds[name]) for name in table.column_names]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


def _object_tables(path: Path, rows: Iterator[tuple[str, Any]], kinds: dict[str, _Kinds]) -> Iterator[pa.Table]:
    """The rows, some at a time, each with all columns met so far; fills in the kinds."""
    import pyarrow as pa

    held: list[dict[str, Any]] = []  # longer than a chunk only while no object has a key
    while some := list(islice(rows, CHUNK_ROWS)):
        held += [_checked(path, where, row, kinds) for where, row in some]
        if kinds:
            yield pa.table({name: _json_array(path, name, [row.get(name) for row in held]) for name in kinds})
            held = []
    if not kinds:
        raise UserError(f"{path}: no rows. Give it objects with a text and a label.")


def _checked(path: Path, where: str, row: Any, kinds: dict[str, _Kinds]) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f'{path}: {where} is a {_json_kind(row)}, not an object. Write {{"text": …, "label": …}}.')
    for name, value in row.items():
        seen = kinds.setdefault(name, {})
        if value is not None:
            seen.setdefault(_json_kind(value), where)
    return row


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


def _field(name: str, kinds: _Kinds) -> pa.Field:
    import pyarrow as pa

    is_plain = not kinds or (len(kinds) == 1 and not {"list", "object"} & set(kinds))
    mixed = " and ".join(f"{kind} ({where})" for kind, where in kinds.items())
    return pa.field(name, pa.string(), metadata=None if is_plain else {b"lightune.mixed": mixed.encode()})


def _json_array(path: Path, name: str, values: list[Any]) -> pa.Array:
    """The values as text."""
    import pyarrow as pa

    try:
        name.encode()  # a key may hold half a character too
        return pa.array([_json_text(value) for value in values], pa.string())
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path}: column {name!r} holds {error.object[error.start : error.end]!r}, half of a surrogate "
            f"pair. Write the whole character in its place."
        ) from None


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(_numbers(value), ensure_ascii=False)


def _numbers(value: Any) -> Any:
    """A nested value with the numbers in it as numbers again."""
    if isinstance(value, dict):
        return {name: _numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return json.loads(value, parse_int=_whole) if isinstance(value, _Number) else value


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) < 1000 else digits  # Python reads no more than 4,300
