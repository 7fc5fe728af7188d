"""Texts that are there more than once: exact, normalised and near copies, across splits, under several labels."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lightune.data.scratch import CHUNK_ROWS, rows_at
from lightune.doctor.exam import Exam, Symptom, share
from lightune.doctor.reading import FEWEST_WORDS, Readings, shingles, words_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from lightune.doctor.patient import Patient

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

NEAR = 0.7  # of the shingles of two texts, in common to both; an altered word in twelve
NEARLY = f"{NEAR:.0%} of their words and pairs of words in common"
MOST_PAIRS = 300_000  # that are compared word by word
KEPT_TEXTS = 256  # whose words are held for their next pair


def duplicates(exam: Exam) -> list[Symptom]:
    found, readings = [], exam.readings
    for number, (name, table) in enumerate(exam.patient.tables.items()):
        is_inside = exam.patient.split_of == number
        among = exam.labelled & is_inside
        exact, alike = (repeats(keys, among) for keys in (readings.exact, readings.normal))
        where = f" of split {name}" if len(exam.patient.tables) > 1 else ""
        total = int(among.sum())
        if len(exact):
            first = int(np.argmax(is_inside))
            whole = whole_rows(table, readings.exact[is_inside], among[is_inside], exact - first)
            what = (
                f"{share(len(exact), total)}{where} repeat the text of an earlier row, {whole:,} of them all columns"
                + _blank_among(exam, exact)
            )
            found.append(Symptom("warning", len(exact), what, exact, "drop"))
        if len(alike) > len(exact):
            more = np.setdiff1d(alike, exact)
            what = f"{share(len(more), total)}{where} repeat an earlier one but for case, white space or Unicode form"
            found.append(Symptom("warning", len(more), what, more, "drop"))
    return found


def near_duplicates(exam: Exam) -> list[Symptom]:
    pairs, is_all = near_pairs(exam.patient, exam.readings, exam.rng)
    if not is_all:
        exam.left_out["near_duplicates"] = f"only {MOST_PAIRS:,} of the pairs that may be near were compared"
    names = list(exam.patient.tables)
    one, other = exam.patient.split_of[pairs].T
    found = []
    for number in np.unique(one[one != other]):
        places = np.unique(pairs[(one == number) & (one != other), 0])
        rows = "training rows" if number == 0 else f"rows of split {names[number]}"
        what = f"{len(places):,} {rows} are nearly a text of another split ({NEARLY})"
        found.append(Symptom("warning", len(places), what, places))
    places = np.unique(pairs[one == other, 1])
    if len(places):
        what = f"{share(len(places), len(exam.patient))} are nearly an earlier text ({NEARLY})"
        found.append(Symptom("warning", len(places), what, places))
    return found


def leaks(exam: Exam) -> list[Symptom]:
    split_of, usable = exam.patient.split_of, exam.usable
    places = shared_with_other_splits(exam.readings.normal, split_of, usable)
    if not len(places):
        return []
    what = f"{share(len(places), int((split_of == 0).sum()))} for training have a text that is in another split, too"
    return [Symptom("error", len(places), what, places, "drop")]


def contradictory(exam: Exam) -> list[Symptom]:
    groups = contradictions(exam.readings.normal, exam.patient.labels.codes, exam.labelled)
    if not groups:
        return []
    places = np.concatenate(groups)
    what = f"{len(groups):,} texts stand under several labels ({len(places):,} rows)" + _blank_among(exam, places)
    return [Symptom("warning", len(groups), what, places, "drop")]


def _blank_among(exam: Exam, places: Ints) -> str:
    """How many of the rows have an empty text, which counts as one as any other does, and is told as empty, too."""
    count = int(exam.readings.flags["blank"][places].sum())
    return f", {count:,} of them without a text" if count else ""


def repeats(keys: NDArray[np.generic], among: Bools) -> Ints:
    """Places of the rows of `among` (N,) whose key (N,) an earlier one of them has."""
    places = np.flatnonzero(among)
    _, first = np.unique(keys[places], return_index=True)
    is_first = np.zeros(len(places), bool)
    is_first[first] = True
    return places[~is_first]


def whole_rows(table: pa.Table, keys: NDArray[np.generic], among: Bools, repeated: Ints) -> int:
    """How many of the `repeated` rows have every column from an earlier row of those `among` (N,) which they are.

    keys (N,) of the texts of the table.
    """
    involved = np.flatnonzero(among & np.isin(keys, keys[repeated]))
    seen: set[int] = set()
    n_repeats = 0
    for start in range(0, len(involved), CHUNK_ROWS):
        for row in rows_at(table, involved[start : start + CHUNK_ROWS]).to_pylist():
            key = hash(repr(row))  # lists have no hash, and NaN is not itself
            n_repeats += key in seen
            seen.add(key)
    return n_repeats


def shared_with_other_splits(keys: NDArray[np.generic], split_of: NDArray[np.int8], among: Bools) -> Ints:
    """Places of the rows of the first split whose key a row of another split has, too."""
    elsewhere = np.unique(keys[among & (split_of != 0)])
    places = np.flatnonzero(among & (split_of == 0))
    return places[np.isin(keys[places], elsewhere)]


def contradictions(keys: NDArray[np.generic], codes: NDArray[np.int32], among: Bools) -> list[Ints]:
    """For each text that stands under several labels, the places of its rows."""
    places = np.flatnonzero(among)
    order = places[np.lexsort((codes[places], keys[places]))]
    is_same_text = keys[order][1:] == keys[order][:-1]
    torn = np.unique(keys[order][1:][is_same_text & (codes[order][1:] != codes[order][:-1])])
    involved = order[np.isin(keys[order], torn)]
    starts = np.flatnonzero(keys[involved][1:] != keys[involved][:-1]) + 1
    return [np.sort(group) for group in np.split(involved, starts)] if len(involved) else []


def near_pairs(patient: Patient, readings: Readings, rng: np.random.Generator) -> tuple[Ints, bool]:
    """Pairs of places (M, 2), the lower first, of near copies that are not the same, and whether all were compared.

    Candidates share a band of their hashes; what they have in common is then counted, shingle by shingle.
    """
    among = (readings.n_words >= FEWEST_WORDS) & (readings.first_copy == np.arange(len(patient)))
    candidates = _candidates(readings.bands, np.flatnonzero(among))
    is_all = len(candidates) <= MOST_PAIRS
    if not is_all:
        candidates = candidates[np.sort(rng.permutation(len(candidates))[:MOST_PAIRS])]

    @lru_cache(KEPT_TEXTS)  # candidates are in order: a text's pairs come one after the other
    def of_text(place: int) -> set[str]:
        return shingles(words_of(patient.texts[place]))

    near = [(one, other) for one, other in candidates.tolist() if are_near(of_text(one), of_text(other))]
    return np.array(near, np.int64).reshape(-1, 2), is_all


def _candidates(bands: NDArray[np.uint64], places: Ints) -> Ints:
    """Pairs (M, 2) of neighbours in a bucket of some band, and of each with the bucket's first."""
    found = [np.zeros((0, 2), np.int64)]
    for band in bands.T:
        order = places[np.argsort(band[places], kind="stable")]
        later = np.flatnonzero(band[order][1:] == band[order][:-1]) + 1  # in the bucket of the one before
        is_start = np.ones(len(order), bool)
        is_start[later] = False
        starts = np.maximum.accumulate(np.where(is_start, np.arange(len(order)), 0))
        found += [np.stack([order[other], order[later]], 1) for other in (later - 1, starts[later])]
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def are_near(one: set[str], other: set[str]) -> bool:
    """Whether two texts have so much in common, by their shingles."""
    # the shorter can have no more in common than it has
    if min(len(one), len(other)) < NEAR * max(len(one), len(other)):
        return False
    return len(one & other) >= NEAR * len(one | other)
