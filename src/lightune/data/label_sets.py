"""Rows with several labels: how their label sets are read, and written as one name.

A set is written as its labels in order with SEPARATOR between them, so that a row's labels are one name wherever rows
are counted, split or shown; the empty set is NOTHING.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.scratch import CHUNK_ROWS
from lightune.data.values import Names
from lightune.errors import UserError
from lightune.records import Decision

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

SEPARATOR, NOTHING = "|", "(no label)"
IN_CELLS = ("|", ";", ",")  # between the labels of a cell of text; the first that is no rarity
RARITY = 0.1  # of the cells that hold any of them
GIVEN, MISSING = 1, 2
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")


def written(labels: Iterable[str]) -> str:
    """A label set as one name."""
    return SEPARATOR.join(sorted(set(labels))) or NOTHING


def members(name: str) -> list[str]:
    """The labels of a set, as it is written."""
    return [] if name == NOTHING else name.split(SEPARATOR)


def label_columns(table: pa.Table, label: str) -> list[str]:
    """The columns that a label names: one, or several of 0 and 1 with commas between them."""
    names = [part.strip() for part in label.split(",")]
    several = label not in table.column_names and len(names) > 1
    return names if several else [label]


def is_label_lists(table: pa.Table, name: str) -> bool:
    """Whether the cells of a column are lists, of strings or of whole numbers, or JSON of lists."""
    import pyarrow as pa

    if name not in table.column_names:
        return False
    field = table.schema.field(name)
    if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
        return bool(pa.types.is_string(field.type.value_type) or pa.types.is_integer(field.type.value_type))
    return bool(re.fullmatch(rb"list \([^)]*\)", (field.metadata or {}).get(b"lightune.mixed", b"")))


def read_sets(table: pa.Table, label: str, class_names: Sequence[str] | None) -> Names:
    """The label set of each row, as it is written; "" where a list, or each of several columns, is missing.

    An empty cell of labels with marks between them is a row that has none: it cannot be written otherwise.

    class_names: what numbers in lists stand for. UserError for a cell of a 0/1 column that is neither, and for a
    label that cannot be one.
    """
    columns = label_columns(table, label)
    if len(columns) > 1:
        return _of_flags(table, columns)
    if is_label_lists(table, label):
        lists = (json.loads(cell) if isinstance(cell, str) else cell for cell in _cells(table, label))
        ids = dict(enumerate(class_names or []))
        return Names.of("" if each is None else written(_name(label, value, ids) for value in each) for each in lists)
    cells = _texts(table, label)
    if not {cell.lower() for cell in cells.names} - {*YES, *NO}:
        raise UserError(
            f"column {label!r}: holds yes and no, and so one label. Name several such columns, with commas between "
            f"them, or leave data.task out (--task)."
        )
    between = _between(cells)
    parts = {cell: [part.strip() for part in cell.split(between)] for cell in cells.names}
    return cells.renamed(
        {cell: written(_name(label, part, {}) for part in each if part) for cell, each in parts.items()}
    )


def describe_marks(table: pa.Table, label: str) -> list[Decision]:
    """What is read as the mark between the labels of a cell of text, and whether others stand there as well."""
    if len(label_columns(table, label)) > 1 or is_label_lists(table, label):
        return []
    cells = _texts(table, label)
    between = _between(cells)
    odd = {cell: n for cell, n in cells.counts().items() if any(mark in cell for mark in IN_CELLS if mark != between)}
    why = f"in {_rows_with(cells, between):,} of {len(cells):,} rows"
    if odd:
        n_rows, first = sum(odd.values()), next(iter(odd))[:60]
        why = f"warning: in {n_rows:,} rows another mark is read as part of a name, the first time in {first!r}"
    return [Decision("between labels", repr(between), why)]


def _between(cells: Names) -> str:
    n_rows = {mark: _rows_with(cells, mark) for mark in IN_CELLS}
    least = max(1.0, RARITY * _rows_with(cells, *IN_CELLS))
    return next((mark for mark in IN_CELLS if n_rows[mark] >= least), IN_CELLS[0])


def _rows_with(cells: Names, *marks: str) -> int:
    return sum(n for cell, n in cells.counts().items() if any(mark in cell for mark in marks))


def _texts(table: pa.Table, name: str) -> Names:
    return Names.of((cell or "").strip() for cell in _cells(table, name))


def _cells(table: pa.Table, name: str) -> Iterator[Any]:
    """The cells of a column, few of them at a time as Python objects."""
    for start in range(0, table.num_rows, CHUNK_ROWS):
        yield from table.column(name).slice(start, CHUNK_ROWS).to_pylist()


def empty_flags(table: pa.Table, label: str) -> int:
    """How many cells of several columns of 0 and 1 are missing in rows that have others."""
    columns = label_columns(table, label)
    if len(columns) < 2:
        return 0
    is_missing = np.stack([_flags(table, name) == MISSING for name in columns], axis=1)
    return int(is_missing[~is_missing.all(axis=1)].sum())


def _name(label: str, value: object, ids: Mapping[int, str]) -> str:
    """A label of a row as its name. UserError for one that cannot be."""
    name = ids.get(value, str(value)) if isinstance(value, int) else value
    if not isinstance(name, str) or not name.strip() or SEPARATOR in name or name.strip() == NOTHING:
        raise UserError(
            f"column {label!r}: {name!r} among the labels of a row. A label is a name, not {NOTHING!r}, and without "
            f"{SEPARATOR!r}. Rename it."
        )
    return name.strip()


def _of_flags(table: pa.Table, columns: Sequence[str]) -> Names:
    flags = np.stack([_flags(table, name) for name in columns], axis=1)  # (N, C)
    patterns, codes = np.unique(flags, axis=0, return_inverse=True)
    names = [
        "" if (row == MISSING).all() else written(columns[i] for i in np.flatnonzero(row == GIVEN).tolist())
        for row in patterns
    ]
    return Names(codes.reshape(-1).astype(np.int32), names)


def _flags(table: pa.Table, name: str) -> NDArray[np.int8]:
    """(N,) GIVEN, or not, or MISSING."""
    return np.fromiter((_flag(name, str(cell or "").strip().lower()) for cell in _cells(table, name)), np.int8)


def _flag(name: str, cell: str) -> int:
    if cell not in YES and cell not in NO:
        raise UserError(
            f"column {name!r}: {cell!r} is neither yes nor no. "
            f"A column of one label holds 1 and 0, or true and false."
        )
    return MISSING if not cell else GIVEN if cell in YES else 0
