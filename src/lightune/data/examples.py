"""The texts and labels of a table's chosen columns. Every dropped row is counted, every odd label named."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lightune.data.columns import check_label, check_texts, template, unusable
from lightune.data.framing import SEPARATOR
from lightune.data.label_sets import NOTHING, describe_marks, empty_flags, members, read_sets, written
from lightune.data.scratch import CHUNK_ROWS, gathered
from lightune.data.targets import classes_in, find_task, read_numbers
from lightune.data.values import Names, Numbers, Texts
from lightune.errors import UserError, near_match
from lightune.recipe import Task
from lightune.records import Decision, Examples

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

MAX_CLASS_NAME = 200


def examples(
    table: pa.Table,
    *,
    text: str,
    label: str | None,
    class_names: list[str] | None = None,
    fewest_classes: int = 2,
    pair: str | None = None,
    task: Task | Literal["auto"] = "auto",
) -> tuple[Examples, list[Decision]]:
    """Texts and labels of the rows that have both, in source order, and what was dropped or noticed.

    Texts are byte-exact, labels lose the white space around them. label=None (prediction) keeps every row, an
    empty text too. class_names: the classes that may occur; labels that are their ids become names. Of rows with
    several labels, those of a row are one name, as `data/label_sets.py` writes it; numbers are written in one way.
    Raises UserError if over half of the rows would be dropped, fewer classes (or different numbers) than
    fewest_classes are left, or a class name is unfit or no number where it has to be one.
    """
    used = check_texts(table, text, pair)
    texts, blank = render(table, text, pair)
    rows = np.arange(table.num_rows)
    if label is None:
        import pyarrow.compute as pc

        filled = (
            pc.if_else(blank, "", texts) if pair is None else texts
        )  # in memory: prediction comes with a part of a table at a time
        return Examples(Texts.of_column(filled, rows), None, Numbers(rows)), []
    check_label(table, label)
    task = find_task(table, label, task)
    several = task == "multi_label"
    labels = read_sets(table, label, class_names) if several else stripped_labels(table.column(label))
    kept, decisions = _keep(blank.to_numpy(), labels, label, is_pair=pair is not None)
    decisions += [] if pair is None else _separators(table, used)
    names, notes = READ[task](labels.take(kept), label, class_names)
    if len(names.counts() if task == "regression" else classes_in(names, task)) < fewest_classes:
        what = "number" if task == "regression" else "class"
        raise UserError(
            f"column {label!r} has a single {what}: {names[0]!r} in all {len(names):,} rows. "
            f"Add rows of another {what}, or set data.label to another column."
        )
    decisions += describe_marks(table, label) if several else []
    if n_empty := empty_flags(table, label):
        decisions.append(
            Decision("empty cells", "no", f"{n_empty:,} cells of columns of 0 and 1, beside others filled in")
        )
    return Examples(Texts.of_column(texts, kept), names, Numbers(kept)), decisions + notes


def render(table: pa.Table, text: str, pair: str | None = None) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """One text per row, a pair joined to one, and whether every column of it, or of one of a pair, is blank."""
    if pair is None and text in table.column_names:
        return table.column(text), _is_blank(table.column(text))
    starts = range(0, max(1, table.num_rows), CHUNK_ROWS)
    rendered = gathered(_rendered(table.slice(start, CHUNK_ROWS), text, pair) for start in starts)
    return rendered.column("text"), rendered.column("blank")


def _rendered(table: pa.Table, text: str, pair: str | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts, blank = _filled(text, table)
    if pair is not None:
        seconds, no_second = _filled(pair, table)
        first, second = (pc.replace_substring(each, SEPARATOR, " ") for each in (texts, seconds))
        texts, blank = pc.binary_join_element_wise(first, second, SEPARATOR), pc.or_(blank, no_second)
    return pa.table({"text": texts, "blank": blank})


def _filled(text: str, table: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """A column or template of some rows, a missing cell as "", and whether all its columns are blank there."""
    import pyarrow.compute as pc

    parts = [("", text)] if text in table.column_names else template(text)
    columns = {name: table.column(name) for _, name in parts if name is not None}
    pieces: list[Any] = []
    for literal, name in parts:
        pieces += [literal] if name is None else [literal, pc.fill_null(columns[name], "")]
    return pc.binary_join_element_wise(*pieces, ""), reduce(pc.and_, map(_is_blank, columns.values()))


def _separators(table: pa.Table, columns: list[str]) -> list[Decision]:
    """That a control character of the source stands for what joins a pair, and gave way to a space."""
    import pyarrow.compute as pc

    found = (pc.fill_null(pc.match_substring(table.column(name), SEPARATOR), False) for name in columns)
    count = pc.sum(reduce(pc.or_, found)).as_py() or 0
    why = f"in {count:,} of {table.num_rows:,} rows; the character stands between the two texts of a pair"
    return [Decision("unit separators (U+001F)", "made spaces", why)] if count else []


def _is_blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each cell is missing, empty or white space."""
    import pyarrow.compute as pc

    blank = pc.or_(pc.equal(pc.binary_length(column), 0), pc.utf8_is_space(column))
    return pc.fill_null(blank, True)


def stripped_labels(column: pa.ChunkedArray) -> Names:
    """The cells without the white space around them; "" where one is missing."""
    codes, names = [np.zeros(0, np.int32)], {"": 0}
    for chunk in column.chunks:
        cells = chunk.fill_null("").dictionary_encode()
        own = [names.setdefault(name.strip(), len(names)) for name in cells.dictionary.to_pylist()]
        codes.append(np.array(own, np.int32)[cells.indices.to_numpy()])
    return Names(np.concatenate(codes), list(names))


def is_unlabelled(table: pa.Table, label: str) -> bool:
    """Whether nobody labelled these rows: the column has no value in any of them."""
    if label not in table.column_names or unusable(table, label):
        return False
    import pyarrow.compute as pc

    return bool(pc.all(_is_blank(table.column(label)), min_count=0).as_py())


def _keep(
    blank: NDArray[np.bool_], labels: Names, label: str, *, is_pair: bool
) -> tuple[NDArray[np.int64], list[Decision]]:
    """The rows with a label and a text, and a decision for each reason that dropped some; a pair needs both texts."""
    n, lack = len(labels), "lack one of their two texts" if is_pair else "have no text"
    has_label = labels.codes != (labels.names.index("") if "" in labels.names else -1)
    unlabelled = n - int(has_label.sum())
    if unlabelled == n:
        raise UserError(f"column {label!r}: all {n:,} labels are missing. Set data.label to the column of classes.")
    empty = int((has_label & blank).sum())
    if (unlabelled + empty) * 2 > n:
        raise UserError(
            f"{unlabelled:,} of {n:,} rows have no label in {label!r} and {empty:,} more {lack}: over "
            f"half would be dropped. Set data.text and data.label to the right columns, or remove those rows."
        )
    without = "rows without both texts of the pair" if is_pair else "rows without a text"
    found = (("rows without a label", unlabelled), (without, empty))
    decisions = [Decision(what, "dropped", f"{count:,} of {n:,} rows") for what, count in found if count]
    return np.flatnonzero(has_label & ~blank), decisions


def _class_names(labels: Names, label: str, class_names: list[str] | None) -> tuple[Names, list[Decision]]:
    """The labels, as names where they are ids of `class_names`; each name checked."""
    decisions: list[Decision] = []
    if class_names is not None:
        labels, decisions = _match_names(labels, label, class_names)
    counts = labels.counts()
    for name in counts:
        _check_class_name(name, label)
    return labels, decisions + _spellings(counts)


def _set_names(labels: Names, label: str, class_names: list[str] | None) -> tuple[Names, list[Decision]]:
    """The label sets, with names where they hold ids of `class_names`; each name checked."""
    counts = classes_in(labels, "multi_label")
    flat = Names.of(list(counts))
    names: Names = flat
    decisions: list[Decision] = []
    if class_names is not None:
        names, decisions = _match_names(flat, label, class_names)
        new = dict(zip(flat.tolist(), names.tolist(), strict=True))
        labels = labels.renamed({each: written(new[part] for part in members(each)) for each in labels.names if each})
    for name in names:
        _check_class_name(name, label)
    n_bare = labels.counts().get(NOTHING, 0)
    why = f"{n_bare:,} of {len(labels):,} rows have none" if n_bare else "every row has one at least"
    return labels, [*decisions, Decision("task", "several labels a row", f"{len(counts)} labels; {why}")]


def _grades(labels: Names, label: str, class_names: list[str] | None) -> tuple[Names, list[Decision]]:
    """The classes, which have an order: the source's own, or that of the numbers that they are."""
    if class_names is None:
        labels = read_numbers(labels, label)
    names, notes = _class_names(labels, label, class_names)
    order = "the source's own order" if class_names else "numbers"
    return names, [*notes, Decision("task", "grades", f"{len(names.counts())} classes in order, {order}")]


def _numbers(labels: Names, label: str, class_names: list[str] | None) -> tuple[Names, list[Decision]]:
    """The labels, which are numbers; names of classes have no say in them."""
    labels = read_numbers(labels, label)
    values = np.array([float(name) for name in labels.counts()])
    why = f"the labels are {len(values):,} different numbers from {values.min():g} to {values.max():g}"
    return labels, [
        Decision("task", "a number is predicted", f"{why}; data.task = 'single_label' takes them for classes")
    ]


def _match_names(labels: Names, label: str, names: list[str]) -> tuple[Names, list[Decision]]:
    counts = labels.counts()
    unknown = {name: count for name, count in counts.items() if name not in names}
    ids = {str(class_id): name for class_id, name in enumerate(names)}
    if not unknown:
        return labels, []
    if counts.keys() <= ids.keys():
        return labels.renamed(ids), [Decision("class names", ", ".join(names), "the labels are their ids")]
    first = next(iter(unknown))
    raise UserError(
        f"column {label!r} has labels that are no class: {dict(list(unknown.items())[:5])} (label: rows). "
        f"The classes are {names[:20]}.{near_match(first, names)} Correct the labels."
    )


def _check_class_name(name: str, label: str) -> None:
    if len(name) > MAX_CLASS_NAME:
        raise UserError(
            f"column {label!r}: the class name {name[:40]!r}… has {len(name):,} characters, at most "
            f"{MAX_CLASS_NAME} are allowed. Set data.label to a column of short names."
        )
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise UserError(
            f"column {label!r}: the class name {name[:60]!r} holds a control character. Remove it from the data."
        )


def _spellings(counts: dict[str, int]) -> list[Decision]:
    """A warning for each number that is written in several ways ("1" and "1.0"): they stay classes apart."""
    by_value: dict[float, list[str]] = defaultdict(list)
    for name in sorted(counts):
        if re.fullmatch(r"[+-]?\d{1,15}(\.\d{0,15})?", name, re.ASCII):
            by_value[float(name)].append(name)
    twins = [by_value[value] for value in sorted(by_value) if len(by_value[value]) > 1]
    return [
        Decision("labels", "kept apart: " + ", ".join(map(repr, names)), _one_number(names, counts))
        for names in twins
    ]


def _one_number(names: list[str], counts: dict[str, int]) -> str:
    rows = ", ".join(f"{name!r} {counts[name]:,} rows" for name in names)
    return f"warning: one number written in several ways ({rows}); write it in one way if it is one class"


READ: dict[Task, Callable[[Names, str, list[str] | None], tuple[Names, list[Decision]]]] = {
    "single_label": _class_names,
    "ordinal": _grades,
    "multi_label": _set_names,
    "regression": _numbers,
}
