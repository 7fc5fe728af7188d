"""Which column is the text, and which the label."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Literal

from lightune.data.label_sets import is_label_lists, label_columns
from lightune.data.targets import is_measured, is_number
from lightune.errors import UserError, near_match
from lightune.recipe import Task
from lightune.records import Decision

if TYPE_CHECKING:
    import pyarrow as pa

# Earlier names win over later ones.
LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "sentiment", "intent", "emotion", "topic", "stars"),
    *("rating", "polarity", "y", "tag", "v1", "score", "coarse_label", "label_text", "verdict", "stance"),
)
TEXT_NAMES = (
    *("text", "sentence", "review", "content", "question", "phrase", "body", "message", "comment", "tweet"),
    *("document", "utterance", "title", "v2", "query", "description", "sms", "abstract", "headline", "post"),
)
# Names of the two texts of a pair, in this order.
PAIR_NAMES = (
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2")),
    *(("sentence_1", "sentence_2"), ("question_1", "question_2"), ("text_1", "text_2"), ("text_a", "text_b")),
    *(("sentence_a", "sentence_b"), ("text", "text_pair"), ("query", "passage"), ("query", "document")),
    *(("question", "passage"), ("question", "sentence"), ("question", "answer"), ("claim", "evidence")),
)

_SAMPLE_ROWS = 10_000
_MAX_CLASSES = 300
_MAX_LABEL_CHARS = 60  # on average; longer cells are texts
_MOSTLY = 0.75  # numbers in a column that is to hold numbers
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
    is_measured: bool  # many different numbers, some with a fraction
    is_numeric: bool  # most are numbers; the rest may be mistakes


def choose_columns(
    table: pa.Table,
    *,
    text: str | None,
    label: str | None,
    pair: str | None = None,
    task: Task | Literal["auto"] = "auto",
) -> tuple[str, str, list[Decision], str | None]:
    """The text column (or template), the label column, the reason for each that was not given, and the second text.

    pair: of the second text, likewise; without it, and without a text, two columns with the names of a pair are one.
    task: where it is regression, a label column holds numbers.
    Raises UserError if a given one is not there or cannot be used, or if the others leave no clear choice.
    """
    if text is None or label is None:
        _check_header(table)
    given = check_texts(table, text, pair)
    if label is not None:
        check_label(table, label)
    profiles = _profiles(table)
    decisions = []
    if label is None:
        label, decision = _pick_label(table, [p for p in profiles if p.name not in given], task)
        decisions.append(decision)
    if text is None:
        text, pair, decision = _pick_texts(table, [p for p in profiles if p.name not in (label, *given)], pair)
        decisions.append(decision)
    if label in given:
        raise UserError(f"column {label!r} is named as text and as label. {_HOW}")
    if text == pair:
        raise UserError(f"{text!r} is named as both texts of a pair. Set data.pair (--pair) to the second one.")
    return text, label, decisions, pair


# What was given


def check_texts(table: pa.Table, text: str | None, pair: str | None) -> list[str]:
    """The columns that a text and a second one use, where there are such. UserError if one cannot be used."""
    given = {"text": text, "pair": pair}
    return [name for role, one in given.items() if one is not None for name in _check_text(table, one, role)]


def _check_text(table: pa.Table, text: str, role: str) -> list[str]:
    names = [text] if text in table.column_names else [name for _, name in template(text, role) if name is not None]
    for name in names or [text]:
        check_column(table, name, role)
    return names


def columns_of(text: str) -> list[str]:
    """The columns that a template uses; without braces it is the name of one."""
    return [name for _, name in template(text) if name is not None] or [text]


@dataclass(frozen=True)
class TextColumns:
    """Columns or templates that make the text of a row, or the two of a pair."""

    text: str
    pair: str | None = None

    @property
    def names(self) -> set[str]:
        """The columns that they use."""
        return {name for text in (self.text, self.pair) if text is not None for name in columns_of(text)}


def used_columns(table: pa.Table, *texts: str | None) -> list[str]:
    """The columns of a table from which one text or two are made; None for a text that is not there."""
    found = [text for text in texts if text is not None]
    return [name for text in found for name in ([text] if text in table.column_names else columns_of(text))]


def template(text: str, role: str = "text") -> list[tuple[str, str | None]]:
    """(literal, column) pairs of "{title}. {content}"; the column is None after the last one. role: text or pair."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise UserError(f"data.{role} is {text!r}: {error}. Write '{{column}}', and '{{{{' for a brace.") from None
    for _, name, spec, conversion in parts:
        if name == "" or spec or conversion:
            raise UserError(f"data.{role} is {text!r}: only plain '{{column}}' may stand in braces. Name a column.")
    return [(literal, name) for literal, name, _, _ in parts]


def check_column(table: pa.Table, name: str, role: str) -> None:
    """UserError unless the table has a column of plain text by this name. role: text, pair or label."""
    if name not in table.column_names:
        raise UserError(
            f"no column {name!r}. Found: {table.column_names}.{near_match(name, table.column_names)} "
            f"Set data.{role} to the one that holds the {'class' if role == 'label' else 'text'}."
        )
    _check_usable(table, name, role)


def check_label(table: pa.Table, label: str) -> None:
    """UserError unless it names a column of plain text or of lists of labels, or several columns of plain text."""
    for name in label_columns(table, label):
        if name != label or not is_label_lists(table, name):
            check_column(table, name, "label")


def _check_usable(table: pa.Table, name: str, role: str) -> None:
    kind = unusable(table, name)
    if kind and role == "label" and kind.startswith("list"):
        raise UserError(_several_labels(name, kind))
    if kind:
        raise UserError(
            f"column {name!r} cannot be the {'label' if role == 'label' else 'text'}: it holds {kind}, not text. "
            f"Turn it into plain text in the file, or set data.{role} to another of {_usable(table)}."
        )


def _several_labels(name: str, kind: str) -> str:
    return (
        f"column {name!r} holds {kind}: lists of labels hold names or whole numbers. "
        f"Write them so, or set data.label to another column."
    )


def unusable(table: pa.Table, name: str) -> str:
    """Why the column is not plain text (its Arrow type, or the kinds that are mixed in it); "" if it is."""
    import pyarrow as pa

    field = table.schema.field(name)
    mixed = (field.metadata or {}).get(b"lightune.mixed", b"").decode()
    return mixed or ("" if pa.types.is_string(field.type) else str(field.type))


def _usable(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if not unusable(table, name)]


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
        is_measured(cells),
        bool(cells) and sum(map(is_number, map(str.strip, cells))) >= _MOSTLY * len(cells),
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


def _pick_label(table: pa.Table, profiles: list[_Profile], task: str) -> tuple[str, Decision]:
    if task == "regression":
        return _pick_numbers(table, [p for p in profiles if p.is_numeric])
    named = sorted((p for p in profiles if _is_named_label(p)), key=lambda p: _rank(p.name, LABEL_NAMES))
    lists = [name for name in table.column_names if is_label_lists(table, name)]
    if not named and len(lists) == 1:
        return lists[0], Decision("label column", lists[0], "the only column of lists: several labels a row")
    other = [p for p in profiles if p not in named and _is_like_label(p)]
    if not named and len(other) != 1:
        raise UserError(_no_label(table, profiles, other))
    best = (named or other)[0]
    also = [p.name for p in (*named, *other) if p != best]
    why = f"{_count_distinct(table, best.name):,} distinct values in {table.num_rows:,} rows"
    why += "; named like a label" if named else "; the only column with few, short, repeated values"
    why += f"; also possible: {', '.join(also)}" if also else ""
    return best.name, Decision("label column", best.name, why)


def _pick_numbers(table: pa.Table, profiles: list[_Profile]) -> tuple[str, Decision]:
    """The column of numbers, the one named like a label where there are several."""
    ranked = sorted(profiles, key=lambda p: _rank(p.name, LABEL_NAMES))
    named = [p for p in ranked if _rank(p.name, LABEL_NAMES) < 1000]
    if not ranked or (len(ranked) > 1 and not named):
        what = f"the label could be any of {[p.name for p in ranked]}" if ranked else "no column holds numbers"
        raise UserError(f"{what}. Columns: {_describe(_profiles(table))}. {_HOW}")
    also = [p.name for p in ranked if p != ranked[0]]
    why = "named like a label" if named else "the only column of numbers"
    return ranked[0].name, Decision(
        "label column", ranked[0].name, why + (f"; also: {', '.join(also)}" if also else "")
    )


def _is_named_label(profile: _Profile) -> bool:
    few = profile.n_distinct <= max(20, min(_MAX_CLASSES, profile.n_rows // 2))
    fits = few and profile.mean_chars <= _MAX_LABEL_CHARS
    return _rank(profile.name, LABEL_NAMES) < 1000 and (fits or profile.is_measured)


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
    lists = [name for name in table.column_names if unusable(table, name).startswith("list")]
    if lists and not candidates:
        return _several_labels(lists[0], unusable(table, lists[0]))
    seen = [p.name for p in candidates]
    what = f"the label could be any of {seen}" if seen else "no column looks like a label (few, repeated values)"
    return f"{what}. Columns: {_describe(profiles)}. {_HOW}"


def _describe(profiles: list[_Profile], most: int = 12) -> str:
    """Each column with an example; the message stays on one screen, whatever the table."""
    shown = [f"{p.name[:40]!r} (e.g. {p.example!r}, {p.n_distinct:,} distinct)" for p in profiles[:most]]
    more = f" and {len(profiles) - most} more" if len(profiles) > most else ""
    return (", ".join(shown) or "none that holds text") + more


def _pick_texts(table: pa.Table, profiles: list[_Profile], pair: str | None) -> tuple[str, str | None, Decision]:
    """The text, and the second one where the longest text is one of two with the names of a pair."""
    known = _known_pair(profiles) if pair is None else None
    if known is None:
        text, decision = _pick_text(table, profiles)
        return text, pair, decision
    why = "known names of a pair; data.text alone (--text) would read one of them"
    return *known, Decision("text columns", " and ".join(known), why)


def _known_pair(profiles: list[_Profile]) -> tuple[str, str] | None:
    """The first of PAIR_NAMES that is there, unless another column holds longer texts."""
    names = {p.name.strip().lower(): p for p in profiles if p.n_rows}
    most = max((p.mean_words for p in profiles), default=0.0)
    for pair in PAIR_NAMES:
        found = [names[name] for name in pair if name in names]
        if len(found) == 2 and max(p.mean_words for p in found) >= _NEAR * most:
            return found[0].name, found[1].name
    return None


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
