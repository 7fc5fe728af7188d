"""What the label of a row is, by the task: the name of a class, that of a label set, or a number.

Labels are strings up to here, a number in one way of writing it; behind here they are arrays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lightune.data.label_sets import is_label_lists, label_columns, members, written
from lightune.data.values import Names
from lightune.errors import UserError
from lightune.recipe import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

VALUE = "value"  # the one output where labels are numbers to predict
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
SMALLEST, LARGEST = 1e-12, 1e12  # sizes of numbers that are learned; beyond, squares and digits get lost
FEWEST_OF_A_SET = 10  # rows; rarer sets are drawn together when rows are split
N_PARTS, PART_ROWS = 10, 20  # at most, of so many rows at least by their number; rows are split in proportion
MOST_GRADES = 20  # different numbers with a fraction that are taken for classes all the same
SAMPLE_ROWS = 10_000


def find_task(table: pa.Table, label: str, asked: Task | Literal["auto"]) -> Task:
    """What was asked for, or what the columns look like.

    Lists, or several columns, are several labels a row; many different numbers, some with a fraction, are predicted
    as numbers.
    """
    is_several = len(label_columns(table, label)) > 1 or is_label_lists(table, label)
    if is_several and asked not in ("auto", "multi_label"):
        raise UserError(f"data.task = {asked!r}, but {label!r} holds several labels a row. Leave data.task out.")
    if asked != "auto":
        return asked
    if is_several:
        return "multi_label"
    return "regression" if is_measured(table.column(label).slice(0, SAMPLE_ROWS).to_pylist()) else "single_label"


def is_measured(cells: Sequence[str | None]) -> bool:
    """Whether all that is there is numbers, many different ones, some with a fraction."""
    found = {cell.strip() for cell in cells if cell and cell.strip()}
    if len(found) <= MOST_GRADES or not all(NUMBER.fullmatch(cell) for cell in found):
        return False
    return any(not float(cell).is_integer() for cell in found)


def is_number(name: str) -> bool:
    """Whether it is written as a number, and is one of a size that can be learned."""
    if not NUMBER.fullmatch(name):
        return False
    return float(name) == 0 or SMALLEST <= abs(float(name)) <= LARGEST


def as_written(value: float) -> str:
    """A number in the one way in which all like it are written: "4" for 4.0 and "04"."""
    return repr(value + 0.0).removesuffix(".0")


def read_numbers(labels: Names, label: str) -> Names:
    """The labels, which are numbers, each in one way of writing it. UserError for one that is none."""
    odd = {name: n for name, n in labels.counts().items() if not is_number(name)}
    if odd:
        shown = ", ".join(f"{name[:40]!r} in {n:,} rows" for name, n in list(odd.items())[:5])
        hint = "Correct them, or empty these cells"
        if any("," in name and NUMBER.fullmatch(name.replace(",", ".")) for name in odd):
            hint = "Write a point for a decimal comma, and nothing between thousands"
        elif all(NUMBER.fullmatch(name) for name in odd):
            hint = f"Give them in another unit: what is learned is 0, or {SMALLEST:g} to {LARGEST:g} in size"
        raise UserError(f"column {label!r}: holds what is no number to learn: {shown}. {hint}.")
    present = set(labels.counts())
    return labels.renamed({name: as_written(float(name)) for name in labels.names if name in present})


def classes_in(labels: Names, task: Task) -> dict[str, int]:
    """Rows of each class that occurs, in the order in which they first do; of numbers there is one, VALUE."""
    if task == "regression":
        return {VALUE: len(labels)} if len(labels) else {}
    counts = labels.counts()
    if task != "multi_label":
        return counts
    found: dict[str, int] = {}
    for name, n_rows in counts.items():
        for label in members(name):
            found[label] = found.get(label, 0) + n_rows
    return found


def as_numbers(labels: Names, class_names: Sequence[str], task: Task) -> NDArray[Any]:
    """Class ids (N,) int; of label sets (N, C): 1 where a row has the label; of numbers themselves (N,) float."""
    if task == "regression":
        return _values(labels)
    if task != "multi_label":
        return labels.ids(class_names)
    places = {name: i for i, name in enumerate(class_names)}
    table = np.zeros((len(labels.names), len(class_names)), dtype=np.int64)
    for code in np.unique(labels.codes):
        table[code, [places[label] for label in members(labels.names[code])]] = 1
    return table[labels.codes]


def as_labels(y: NDArray[Any], class_names: Sequence[str]) -> Sequence[str] | NDArray[np.float64]:
    """What stands behind class ids (N,) or rows of 0 and 1 (N, C): names; numbers are what they are."""
    if y.ndim == 1:
        return y if y.dtype.kind == "f" else [class_names[i] for i in y]
    return [written(class_names[i] for i in np.flatnonzero(row).tolist()) for row in y]


def strata(labels: Names, task: Task) -> Names:
    """What rows are split in proportion by: labels; of rare label sets, that they are rare; of numbers, parts."""
    if task == "regression":
        values = _values(labels)
        n_parts = max(1, min(N_PARTS, len(values) // PART_ROWS))
        edges = np.unique(np.quantile(values, np.linspace(0, 1, n_parts + 1)[1:-1])) if len(values) else values
        return Names(np.searchsorted(edges, values).astype(np.int32), [f"part {i}" for i in range(len(edges) + 1)])
    if task != "multi_label":
        return labels
    rare = {name: "(rare)" for name, n_rows in labels.counts().items() if n_rows < FEWEST_OF_A_SET}
    return labels.renamed(rare)


def _values(labels: Names) -> NDArray[np.float64]:
    present = set(np.unique(labels.codes).tolist())
    return np.array([float(name) if i in present else 0.0 for i, name in enumerate(labels.names)])[labels.codes]
