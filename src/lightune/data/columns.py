"""Which column is the text, which the label, and the examples they make. Every dropped row is counted."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from string import Formatter
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.scratch import CHUNK_ROWS, gathered
from lightune.data.values import Names, Numbers, Texts
from lightune.errors import UserError, near_match
from lightune.records import Decision, Examples

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

# Earlier names win over later ones.
LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "sentiment", "intent", "emotion", "topic", "stars"),
    *("rating", "polarity", "y", "tag", "v1", "score", "coarse_label", "label_text", "verdict", "stance"),
)
TEXT_NAMES = (
    *("text", "sentence", "review", "content", "question", "phrase", "body", "message", "comment", "tweet"),
    *("document", "utterance", "title", "v2", "query", "description", "sms", "abstract", "headline", "post"),
)
MAX_CLASS_NAME = 200

_SAMPLE_ROWS = 10_000
_MAX_CLASSES = 300
_MAX_LABEL_CHARS = 60  # on average; longer cells are texts
_NEAR = 0.8  # a text column within 80 % of the longest is as long
_HOW = "Set data.text and data.label (--text, --label) to the columns that hold the text and the class."


@dataclass(frozen=True)
class _Profile:
    """What is seen of a column of strings in at most 10,000 rows of the table; empty cells are left out."""

    name: str
    n_rows: int
    n_distinct: int
    mean_words: float
    mean_chars: float
    example: str


def choose_columns(table: pa.Table, *, text: str | None, label: str | None) -> tuple[str, str, list[Decision]]:
    """The text column (or template) and the label column, with the reason for each that was not given.

    Raises UserError if a given one is not there or cannot be used, or if the others leave no clear choice.
    """
    if text is None or label is None:
        _check_header(table)
    given = _check_text_choice(table, text) if text is not None else []
    if label is not None:
        _check_column(table, label, "label")
    profiles = _profiles(table)
    decisions = []
    if label is None:
        label, decision = _pick_label(table, [p for p in profiles if p.name not in given])
        decisions.append(decision)
    if text is None:
        text, decision = _pick_text(table, [p for p in profiles if p.name != label])
        decisions.append(decision)
    elif label in given:
        raise UserError(f"column {label!r} is named as text and as label. {_HOW}")
    return text, label, decisions


# What was given


def _check_text_choice(table: pa.Table, text: str) -> list[str]:
    """The columns that `text` uses."""
    names = [text] if text in table.column_names else [name for _, name in _template(text) if name is not None]
    if not names:
        _check_column(table, text, "text")
    for name in names:
        _check_column(table, name, "text")
    return names


def columns_of(text: str) -> list[str]:
    """The columns that a template uses; without braces it is the name of one."""
    return [name for _, name in _template(text) if name is not None] or [text]


def _template(text: str) -> list[tuple[str, str | None]]:
    """(literal, column) pairs of "{title}. {content}"; the column is None after the last one."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise UserError(f"data.text is {text!r}: {error}. Write '{{column}}', and '{{{{' for a brace.") from None
    for _, name, spec, conversion in parts:
        if name == "" or spec or conversion:
            raise UserError(f"data.text is {text!r}: only plain '{{column}}' may stand in braces. Name a column.")
    return [(literal, name) for literal, name, _, _ in parts]


def _check_column(table: pa.Table, name: str, role: str) -> None:
    if name not in table.column_names:
        raise UserError(
            f"no column {name!r}. Found: {table.column_names}.{near_match(name, table.column_names)} "
            f"Set data.{role} to the one that holds the {'text' if role == 'text' else 'class'}."
        )
    _check_usable(table, name, role)


def _check_usable(table: pa.Table, name: str, role: str) -> None:
    kind = _unusable(table, name)
    if kind and role == "label" and kind.startswith("list"):
        raise UserError(_several_labels(name, kind))
    if kind:
        raise UserError(
            f"column {name!r} cannot be the {role}: it holds {kind}, not text. "
            f"Turn it into plain text in the file, or set data.{role} to another of {_usable(table)}."
        )


def _several_labels(name: str, kind: str) -> str:
    return (
        f"column {name!r} holds {kind}: several labels per row are not supported in this version. "
        f"Keep one label in each row, or set data.label to a column that has one."
    )


def _unusable(table: pa.Table, name: str) -> str:
    """Why the column is not plain text (its Arrow type, or the kinds that are mixed in it); "" if it is."""
    import pyarrow as pa

    field = table.schema.field(name)
    mixed = (field.metadata or {}).get(b"lightune.mixed", b"").decode()
    return mixed or ("" if pa.types.is_string(field.type) else str(field.type))


def _usable(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if not _unusable(table, name)]


# What the columns look like


def _sample(table: pa.Table) -> pa.Table:
    """At most 10,000 rows at even steps: a file sorted by class would show one class in its first 10,000."""
    import pyarrow as pa

    step = -(-table.num_rows // _SAMPLE_ROWS)
    if step <= 1:
        return table
    first, parts = 0, []
    for batch in table.to_batches():  # one after the other: `take` on the whole table would copy its columns
        parts.append(batch.take(pa.array(range(-first % step, batch.num_rows, step), pa.int64())))
        first += batch.num_rows
    return pa.Table.from_batches(parts, table.schema)


def _profiles(table: pa.Table) -> list[_Profile]:
    sample = _sample(table.select(_usable(table)))
    return [_profile(name, sample.column(name)) for name in sample.column_names]


def _profile(name: str, column: pa.ChunkedArray) -> _Profile:
    cells = [cell for cell in column.to_pylist() if cell and cell.strip()]
    n = max(1, len(cells))
    return _Profile(
        name,
        len(cells),
        len({cell.strip() for cell in cells}),
        sum(len(cell.split()) for cell in cells) / n,
        sum(map(len, cells)) / n,
        cells[0][:60] if cells else "",
    )


def _check_header(table: pa.Table) -> None:
    """Refuses a first row of data taken for the header: one of its cells recurs below it."""
    sample = _sample(table.select(_usable(table)))
    sentence = next((name for name in table.column_names if _is_sentence(name)), None)
    for name in sample.column_names:
        n_same = sum(cell.strip() == name.strip() for cell in sample.column(name).to_pylist() if cell)
        # Tables saved without names have the headers 0, 1, 2; alone, a class 1 in column 1 means nothing.
        telling = sentence is not None or not re.fullmatch(r"[\d.+-]+", name.strip())
        if n_same >= 2 and telling and name.strip().lower() not in LABEL_NAMES + TEXT_NAMES:
            raise UserError(
                f"no header row: the first row looks like data {_shorten(table.column_names)}; {name!r} is "
                f"there {n_same} times more. Add a first line with the columns' names, such as text,label."
            )


def _is_sentence(name: str) -> bool:
    return len(name.split()) >= 4 or len(name) > 40 or (len(name.split()) > 1 and name.strip()[-1:] in ".!")


def _shorten(names: Iterable[str]) -> list[str]:
    return [name if len(name) <= 40 else f"{name[:40]}…" for name in names]


# The choice


def _pick_label(table: pa.Table, profiles: list[_Profile]) -> tuple[str, Decision]:
    named = sorted((p for p in profiles if _is_named_label(p)), key=lambda p: _rank(p.name, LABEL_NAMES))
    other = [p for p in profiles if p not in named and _is_like_label(p)]
    if not named and len(other) != 1:
        raise UserError(_no_label(table, profiles, other))
    best = (named or other)[0]
    also = [p.name for p in (*named, *other) if p != best]
    why = f"{_count_distinct(table, best.name):,} distinct values in {table.num_rows:,} rows"
    why += "; named like a label" if named else "; the only column with few, short, repeated values"
    why += f"; also possible: {', '.join(also)}" if also else ""
    return best.name, Decision("label column", best.name, why)


def _is_named_label(profile: _Profile) -> bool:
    few = profile.n_distinct <= max(20, min(_MAX_CLASSES, profile.n_rows // 2))
    return _rank(profile.name, LABEL_NAMES) < 1000 and few and profile.mean_chars <= _MAX_LABEL_CHARS


def _is_like_label(profile: _Profile) -> bool:
    repeated = 2 <= profile.n_distinct <= min(_MAX_CLASSES, profile.n_rows // 2)
    known_text = profile.name.strip().lower() in TEXT_NAMES
    return repeated and not known_text and profile.mean_chars <= _MAX_LABEL_CHARS


def _rank(name: str, known: tuple[str, ...]) -> int:
    """Place of a name among `known`; 100 later if it only holds one (airline_sentiment), else 1000."""
    name = name.strip().lower()
    if name in known:
        return known.index(name)
    words = [word for word in re.split(r"[^a-z0-9]+", name) if len(word) > 2]
    return min((100 + known.index(word) for word in words if word in known), default=1000)


def _count_distinct(table: pa.Table, name: str) -> int:
    import pyarrow.compute as pc

    return int(pc.count_distinct(pc.utf8_trim_whitespace(pc.unique(table.column(name)))).as_py())


def _no_label(table: pa.Table, profiles: list[_Profile], candidates: list[_Profile]) -> str:
    lists = [name for name in table.column_names if _unusable(table, name).startswith("list")]
    if lists and not candidates:
        return _several_labels(lists[0], _unusable(table, lists[0]))
    seen = [p.name for p in candidates]
    what = f"the label could be any of {seen}" if seen else "no column looks like a label (few, repeated values)"
    return f"{what}. Columns: {_describe(profiles)}. {_HOW}"


def _describe(profiles: list[_Profile], most: int = 12) -> str:
    """Each column with an example; the message stays on one screen, whatever the table."""
    shown = [f"{p.name[:40]!r} (e.g. {p.example!r}, {p.n_distinct:,} distinct)" for p in profiles[:most]]
    more = f" and {len(profiles) - most} more" if len(profiles) > most else ""
    return (", ".join(shown) or "none that holds text") + more


def _pick_text(table: pa.Table, profiles: list[_Profile]) -> tuple[str, Decision]:
    """Length is counted in words, so that an address or an identifier does not pass for a text."""
    filled = sorted((p for p in profiles if p.n_rows), key=lambda p: (-p.mean_words, -p.mean_chars))
    if not filled:
        raise UserError(f"no column is left for the text. Columns: {_describe(_profiles(table))}. {_HOW}")
    near = [p for p in filled if p.mean_words >= _NEAR * filled[0].mean_words]
    named = sorted((p for p in near if _is_named_text(p)), key=lambda p: _rank(p.name, TEXT_NAMES))
    if not named:  # in a script without spaces every cell is one word: then the characters count
        near = [p for p in near if p.mean_chars >= _NEAR * max(other.mean_chars for other in near)]
    if len(near) > 1 and not named:
        raise UserError(
            f"the text could be any of {[p.name for p in near]}, they are about as long. Columns: "
            f"{_describe(profiles)}. {_HOW} A template such as {_pair(near)!r} uses several."
        )
    best = (named or near)[0]
    return best.name, Decision("text column", best.name, _why_text(best, profiles))


def _is_named_text(profile: _Profile) -> bool:
    return _rank(profile.name, TEXT_NAMES) < 1000


def _why_text(best: _Profile, profiles: list[_Profile]) -> str:
    why = f"longest text: {best.mean_words:,.0f} words on average"
    if _is_named_text(best):
        why += "; named like a text"
    siblings = [p for p in profiles if p != best and p.mean_words >= 2 and p.n_distinct > p.n_rows / 2]
    if siblings:
        lengths = ", ".join(f"{p.name} ({p.mean_words:,.0f} words)" for p in siblings)
        why += f"; not used: {lengths}; data.text = {_pair([siblings[0], best])!r} would use both"
    return why


def _pair(profiles: list[_Profile]) -> str:
    return f"{{{profiles[0].name}}}. {{{profiles[1].name}}}"


# The examples


def examples(
    table: pa.Table,
    *,
    text: str,
    label: str | None,
    class_names: list[str] | None = None,
    fewest_classes: int = 2,
) -> tuple[Examples, list[Decision]]:
    """Texts and labels of the rows that have both, in source order, and what was dropped or noticed.

    Texts are byte-exact, labels lose the white space around them. label=None (prediction) keeps every row, an
    empty text too. class_names: the classes that may occur; labels that are their ids become names.
    Raises UserError if over half of the rows would be dropped, fewer classes than fewest_classes are left, or
    a class name is unfit.
    """
    _check_text_choice(table, text)
    texts, blank = _render(table, text)
    rows = np.arange(table.num_rows)
    if label is None:
        import pyarrow.compute as pc

        filled = pc.if_else(blank, "", texts)  # in memory: prediction comes with a part of a table at a time
        return Examples(Texts.of_column(filled, rows), None, Numbers(rows)), []
    _check_column(table, label, "label")
    labels = _labels(table.column(label))
    kept, decisions = _keep(blank.to_numpy(), labels, label)
    names, notes = _class_names(labels.take(kept), label, class_names)
    if len(names.counts()) < fewest_classes:
        raise UserError(
            f"column {label!r} has a single class: {names[0]!r} in all {len(names):,} rows. "
            f"Add rows of another class, or set data.label to another column."
        )
    return Examples(Texts.of_column(texts, kept), names, Numbers(kept)), decisions + notes


def _render(table: pa.Table, text: str) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """One text per row, and whether every column that it uses is missing or blank there."""
    if text in table.column_names:
        return table.column(text), _is_blank(table.column(text))
    parts = _template(text)
    starts = range(0, max(1, table.num_rows), CHUNK_ROWS)
    rendered = gathered(_filled(parts, table.slice(start, CHUNK_ROWS)) for start in starts)
    return rendered.column("text"), rendered.column("blank")


def _filled(parts: list[tuple[str, str | None]], table: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {name: table.column(name) for _, name in parts if name is not None}
    pieces: list[Any] = []
    for literal, name in parts:
        pieces += [literal] if name is None else [literal, pc.fill_null(columns[name], "")]
    blank = reduce(pc.and_, map(_is_blank, columns.values()))
    return pa.table({"text": pc.binary_join_element_wise(*pieces, ""), "blank": blank})


def _is_blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each cell is missing, empty or white space."""
    import pyarrow.compute as pc

    blank = pc.or_(pc.equal(pc.binary_length(column), 0), pc.utf8_is_space(column))
    return pc.fill_null(blank, True)


def _labels(column: pa.ChunkedArray) -> Names:
    """The cells without the white space around them; "" where one is missing."""
    codes, names = [np.zeros(0, np.int32)], {"": 0}
    for chunk in column.chunks:
        cells = chunk.fill_null("").dictionary_encode()
        own = [names.setdefault(name.strip(), len(names)) for name in cells.dictionary.to_pylist()]
        codes.append(np.array(own, np.int32)[cells.indices.to_numpy()])
    return Names(np.concatenate(codes), list(names))


def is_unlabelled(table: pa.Table, label: str) -> bool:
    """Whether nobody labelled these rows: the column has no value in any of them."""
    if label not in table.column_names or _unusable(table, label):
        return False
    import pyarrow.compute as pc

    return bool(pc.all(_is_blank(table.column(label)), min_count=0).as_py())


def _keep(blank: NDArray[np.bool_], labels: Names, label: str) -> tuple[NDArray[np.int64], list[Decision]]:
    """The rows with a label and a text, and a decision for each reason that dropped some."""
    n = len(labels)
    has_label = labels.codes != labels.names.index("")
    unlabelled = n - int(has_label.sum())
    if unlabelled == n:
        raise UserError(f"column {label!r}: all {n:,} labels are missing. Set data.label to the column of classes.")
    empty = int((has_label & blank).sum())
    if (unlabelled + empty) * 2 > n:
        raise UserError(
            f"{unlabelled:,} of {n:,} rows have no label in {label!r} and {empty:,} more have no text: over "
            f"half would be dropped. Set data.text and data.label to the right columns, or remove those rows."
        )
    found = (("rows without a label", unlabelled), ("rows without a text", empty))
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
