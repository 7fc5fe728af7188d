"""What tells the label without the text being read: one token, another column, the neighbour in the file."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.columns import used_columns
from lightune.data.scratch import rows_at
from lightune.doctor.exam import SHOWN, Exam, Symptom, quoted, share
from lightune.doctor.reading import words_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from lightune.data.values import Texts

    Ints = NDArray[np.int64]

SAMPLE_ROWS = 20_000  # that tokens and columns are looked for in
FEWEST_TEXTS = 5  # with a token that gives a class away
NEIGHBOURS = 2_000  # pairs of neighbouring rows that are compared with pairs drawn at random
GIVEN_AWAY = 0.95  # of the rows, classes in balance: what no token and no column should tell alone
FEWEST_ROWS = 200  # of which neighbours are compared
MOST_KINDS = 1000
MOST_VALUES = 0.5  # of the rows: a column of more values than that is a name, not a kind


def tokens(exam: Exam) -> list[Symptom]:
    places, codes, names = _of_sample(exam)
    found = telling_tokens(exam.patient.texts.take(places), codes, len(names)) if len(names) > 1 else []
    return [
        Symptom(
            "warning",
            int((codes == code).sum()),
            f"{precision:.1%} of the texts with {quoted(token)} are {quoted(names[code])} (classes in balance), "
            f"and {recall:.1%} of these have it",
        )
        for token, code, precision, recall in found[:SHOWN]
    ]


def columns(exam: Exam) -> list[Symptom]:
    patient = exam.patient
    table = next(iter(patient.tables.values()))
    used = {patient.label, *used_columns(table, patient.text, patient.pair)}
    places, codes, names = _of_sample(exam)
    found = telling_columns(table, places, codes, len(names), used, exam.rng) if len(names) > 1 else []
    return [
        Symptom(
            "warning",
            len(places),
            f"column {quoted(name)} alone tells the label, right in {score:.1%} (classes in balance)",
        )
        for name, score in found
    ]


def _of_sample(exam: Exam) -> tuple[Ints, NDArray[np.int32], list[str]]:
    """Rows to look at, their classes from 0 without a gap, and the names of those."""
    places = exam.sample(SAMPLE_ROWS)
    present, codes = np.unique(exam.patient.labels.codes[places], return_inverse=True)
    return places, codes.astype(np.int32), [exam.patient.labels.names[code] for code in present]


def groups(exam: Exam) -> list[Symptom]:
    patient = exam.patient
    if exam.group is not None:
        return _straddling(exam, exam.group)
    n_first = next(iter(patient.tables.values())).num_rows
    if n_first < FEWEST_ROWS:
        exam.left_out["groups"] = f"fewer than {FEWEST_ROWS} rows"
        return []
    codes = patient.labels.codes[:n_first]
    near, apart = likeness_of_neighbours(patient.texts[:n_first], codes, exam.rng)
    if near < max(0.05, 3 * apart):
        return []
    what = f"neighbouring rows share {near:.0%} of their rarer words, others of their class {apart:.1%}"
    return [Symptom("warning", n_first, what)]


def _straddling(exam: Exam, group: str) -> list[Symptom]:
    import pyarrow as pa
    import pyarrow.compute as pc

    tables = exam.patient.tables
    if len(tables) == 1:
        return _to_be_torn(exam, group)
    first, *rest = ((name, _filled(table.column(group))) for name, table in tables.items())
    found = []
    for name, column in rest:
        shared = set(first[1].drop_null().unique().to_pylist()) & set(column.drop_null().unique().to_pylist())
        if shared:
            places = np.flatnonzero(np.asarray(pc.is_in(first[1], pa.array(list(shared), pa.string()))))
            what = f"{len(shared):,} values of {group!r} are in the training rows and in split {name}"
            found.append(Symptom("error", len(places), what, places))
    return found


def _to_be_torn(exam: Exam, group: str) -> list[Symptom]:
    """What a split at random would have on both sides, where there is none yet."""
    (table,) = exam.patient.tables.values()
    values = _filled(table.column(group)).combine_chunks().dictionary_encode().indices
    codes = np.asarray(values.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
    sizes = np.bincount(codes + 1)[1:]  # of rows without a value there is no group
    places = np.flatnonzero((codes >= 0) & (np.append(sizes, 0)[codes] > 1))
    if not len(places):
        return []
    several = (
        f"{int((sizes > 1).sum()):,} values of {group!r} have several rows: {share(len(places), table.num_rows)}"
    )
    what = f"{several}, which a split at random tears apart"
    return [Symptom("warning", len(places), what, places)]


def _filled(column: Any) -> Any:
    """The cells as text, null where there is nothing but white space."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = column.cast(pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(cells), ""), pa.scalar(None, pa.string()), cells)


def telling_tokens(texts: Texts, codes: NDArray[np.int32], n_classes: int) -> list[tuple[str, int, float, float]]:
    """Tokens that say by themselves whether a text is of a class: token, class, precision and recall, the best first.

    Only those of which both are at least GIVEN_AWAY, in at least FEWEST_TEXTS texts of the class. Precision counts
    classes in balance: a token in nearly every text says nothing, however many are of one class.
    """
    sizes = np.bincount(codes, minlength=n_classes)
    usual = _usual_tokens(texts, codes, sizes)
    counts = np.zeros((len(usual), n_classes))
    place_of = {token: place for place, token in enumerate(usual)}
    for text, code in zip(texts, codes.tolist(), strict=True):
        counts[[place_of[token] for token in _tokens(text or "") if token in place_of], code] += 1
    rates = counts / np.maximum(sizes, 1)
    precision = rates / np.maximum(rates.sum(axis=1, keepdims=True), 1e-12)
    is_telling = (counts >= FEWEST_TEXTS) & (rates >= GIVEN_AWAY) & (precision >= GIVEN_AWAY)
    found = [
        (usual[place], int(code), float(precision[place, code]), float(rates[place, code]))
        for place, code in zip(*np.nonzero(is_telling), strict=True)
    ]
    return sorted(found, key=lambda each: (-min(each[2:]), each[0]))


def _usual_tokens(texts: Texts, codes: NDArray[np.int32], sizes: Ints) -> list[str]:
    """Tokens that nearly all texts of some class have.

    Such a one is missed by at most 1 - GIVEN_AWAY of the class's texts, so it is in one of its first ones: others
    are not counted.
    """
    may_miss = ((1 - GIVEN_AWAY) * sizes).astype(np.int64)
    seen = np.zeros(len(sizes), np.int64)
    counts: list[Counter[str]] = [Counter() for _ in sizes]
    for text, code in zip(texts, codes.tolist(), strict=True):
        own = _tokens(text or "")
        counts[code].update(own if seen[code] <= may_miss[code] else own & counts[code].keys())
        seen[code] += 1
    both = zip(counts, sizes.tolist(), strict=True)
    return sorted({token for own, n in both for token in own if own[token] >= max(FEWEST_TEXTS, GIVEN_AWAY * n)})


def _tokens(text: str) -> set[str]:
    """Words, and what stands between white space: a mark such as [src:7] is one token."""
    return {*words_of(text), *text.split()}


def telling_columns(
    table: pa.Table, places: Ints, codes: NDArray[np.int32], n_classes: int, used: set[str], rng: np.random.Generator
) -> list[tuple[str, float]]:
    """Columns beside text and label from whose value alone the label follows, and how often, classes in balance."""
    found = []
    for name in table.column_names:
        if name in used:
            continue
        values = _kinds(rows_at(table.select([name]), places).column(name))
        if values is not None and (score := _predicts(values, codes, n_classes, rng)) >= GIVEN_AWAY:
            found.append((name, score))
    return sorted(found, key=lambda each: -each[1])


def _kinds(column: Any) -> Ints | None:
    """(N,) the kind of each cell: 0 for none, its value, or a fiftieth of the numbers; None if it is a name."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_string(column.type):
        return None
    cells = _filled(column).combine_chunks()
    n_values = pc.count_distinct(cells, mode="all").as_py()
    if n_values < 2:
        return None
    if n_values > MOST_VALUES * len(cells) or n_values > MOST_KINDS:
        return _fiftieths(cells)
    encoded = cells.dictionary_encode()
    return np.asarray(pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), np.int64) + 1


def _fiftieths(cells: Any) -> Ints | None:
    """(N,) in which fiftieth of the numbers each is, from 1; 0 for none; None if they are no numbers."""
    import pyarrow as pa

    try:
        numbers = cells.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None
    is_number = np.isfinite(numbers)
    if not is_number.any():
        return None
    edges = np.unique(np.quantile(numbers[is_number], np.linspace(0, 1, 51)[1:-1]))
    return np.where(is_number, np.searchsorted(edges, numbers) + 1, 0).astype(np.int64)


def _predicts(values: Ints, codes: NDArray[np.int32], n_classes: int, rng: np.random.Generator) -> float:
    """Balanced accuracy, on half of the rows, of each value's most likely class in the other half."""
    held_out = rng.permutation(len(values)) < len(values) // 2
    counts = np.zeros((int(values.max()) + 1, n_classes))
    np.add.at(counts, (values[~held_out], codes[~held_out]), 1)
    weighed = counts / np.maximum(np.bincount(codes[~held_out], minlength=n_classes), 1)  # classes count alike
    guessed = weighed.argmax(axis=1)[values[held_out]]
    truth = codes[held_out]
    shares = [float((guessed[truth == c] == c).mean()) for c in np.unique(truth)]
    return float(np.mean(shares)) if len(shares) > 1 else 0.0


def likeness_of_neighbours(texts: Texts, codes: NDArray[np.int32], rng: np.random.Generator) -> tuple[float, float]:
    """How much a row has in common with the next, and with one of the next one's class drawn at random.

    Both are the mean share of rare words, which stand in at most one in a hundred of the texts looked at.
    """
    n = len(texts)
    starts = np.sort(rng.permutation(n - 1)[:NEIGHBOURS])
    by_class = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    like_next = codes[starts + 1]
    others = by_class[first[like_next] + (rng.random(len(starts)) * sizes[like_next]).astype(np.int64)]
    places = np.unique(np.concatenate([starts, starts + 1, others]))
    words = {int(i): set(words_of(text or "")) for i, text in zip(places, texts.take(places), strict=True)}
    seen = Counter(word for each in words.values() for word in each)
    most = max(2, len(words) // 100)
    rare = {i: {word for word in each if 2 <= seen[word] <= most} for i, each in words.items()}
    near = [_jaccard(rare[int(i)], rare[int(i) + 1]) for i in starts]
    apart = [_jaccard(rare[int(i)], rare[int(j)]) for i, j in zip(starts, others, strict=True) if abs(i - j) > 1]
    return float(np.mean(near)), float(np.mean(apart)) if apart else 0.0


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one or other else 0.0
