"""Labels that may be one class written in several ways, labels that say nothing, and classes of few rows."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lightune.doctor.exam import SHOWN, Exam, Symptom, quoted, share
from lightune.doctor.findings import Severity

FEW_ROWS = 10  # of a class: fewer can neither be learned nor tested
SPELLED = {"zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
SPELLED |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
RARE_SHARE = 0.2  # a misspelt label has at most so many rows for each of the right one's
FEWEST_LETTERS = 5  # of a label that may be misspelt: "cat" and "car" are two words
MISSING = {"nan", "none", "null", "nil", "n/a", "#n/a", "<na>", "nat"}  # what programs write for no value
LETTER = r"[^\W\d_]"
PUNCTUATION, MISSPELLING = "punctuation or accents", "a letter or two"


class Twins(NamedTuple):
    """Labels that look like one: the commonest, the others, in what they differ, whether they are one for sure."""

    kept: str
    others: tuple[str, ...]
    how: str
    is_sure: bool


def alike(exam: Exam) -> list[Symptom]:
    counts = _counts(exam)
    found = []
    for each in twins(counts):
        written = ascii if each.how == "Unicode form" else repr  # they look the same on a screen
        *first, last = (f"{quoted(name, written)} ({counts[name]:,} rows)" for name in (*each.others, each.kept))
        what = f"labels {', '.join(first)} and {last} differ in {each.how} only"
        places = np.flatnonzero(exam.patient.of_classes(each.others))
        if each.is_sure and exam.patient.task == "multi_label":
            found.append(Symptom("error", len(places), what, places))
        elif each.is_sure:
            found.append(Symptom("error", len(places), what, places, "relabel", each.kept))
        else:
            found.append(Symptom("warning", len(places), what, places))
    return found


def missing(exam: Exam) -> list[Symptom]:
    """Labels such as "None": a class of that name, or what a program wrote for no label."""
    odd = [name for name in _counts(exam) if name.casefold() in MISSING]
    if not odd:
        return []
    places = np.flatnonzero(exam.patient.of_classes(odd))
    what = f"{share(len(places), len(exam.patient))} have a label that is written for no value: {_listed(odd)}"
    return [Symptom("warning", len(places), what, places)]


def single(exam: Exam) -> list[Symptom]:
    counts = _counts(exam, training_only=True)
    if len(counts) > 1:
        return []
    what = f"all training rows are {quoted(next(iter(counts)))}" if counts else "no training row has a label"
    return [Symptom("error", sum(counts.values()), what)]


def rare(exam: Exam) -> list[Symptom]:
    counts = _counts(exam, training_only=True)
    few = {name: n for name, n in counts.items() if n < FEW_ROWS}
    if not few:
        return []
    shown = ", ".join(f"{quoted(name)} ({n})" for name, n in sorted(few.items(), key=lambda each: each[1])[:SHOWN])
    more = f" and {len(few) - SHOWN} more" if len(few) > SHOWN else ""
    places = np.flatnonzero(exam.patient.of_classes(few) & (exam.patient.split_of == 0))
    severity: Severity = "error" if min(few.values()) == 1 else "warning"
    what = f"{len(few):,} of {len(counts):,} classes have fewer than {FEW_ROWS} training rows: {shown}{more}"
    return [Symptom(severity, len(few), what, places)]


def absent(exam: Exam) -> list[Symptom]:
    present = [
        set(exam.patient.classes(np.flatnonzero(exam.patient.split_of == i))) for i in range(len(exam.patient.tables))
    ]
    found = []
    for name, here in list(zip(exam.patient.tables, present, strict=True))[1:]:
        gaps: tuple[tuple[set[str], Severity, str], ...] = (
            (here - present[0], "error", f"of split {name} are not in the training rows"),
            (present[0] - here, "note", f"of the training rows are not in split {name}"),
        )
        for lacking, severity, what in gaps:
            if lacking:
                sentence = f"{len(lacking):,} classes {what}: {_listed(sorted(lacking))}"
                found.append(Symptom(severity, len(lacking), sentence))
    return found


def _counts(exam: Exam, *, training_only: bool = False) -> dict[str, int]:
    """Rows of each label, those without one left out."""
    return exam.patient.classes(np.flatnonzero(exam.patient.split_of == 0) if training_only else None)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(quoted, names[:SHOWN])) + more


def twins(counts: Mapping[str, int]) -> list[Twins]:
    """Labels that look like one, each in one group at most of a kind. counts: label -> rows.

    Those of one SAME form are one class for sure. Of each of these the commonest is then compared without
    punctuation and accents, and what is rare with what is near it: these may be two classes all the same.
    """
    groups = _grouped(counts, counts, list(SAME.values())[-1])
    sure = [Twins(kept, tuple(others), _difference([kept, *others]), True) for kept, *others in groups if others]
    looser = _grouped((kept for kept, *_ in groups), counts, _plain)
    doubtful = [Twins(kept, tuple(others), PUNCTUATION, False) for kept, *others in looser if others]
    return [*sure, *doubtful, *_misspelt({kept: counts[kept] for kept, *_ in looser})]


def _grouped(names: Iterable[str], counts: Mapping[str, int], form: Callable[[str], str]) -> list[list[str]]:
    """The names by their form, in each group the commonest first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[form(name)].append(name)
    return [sorted(group, key=lambda name: (-counts[name], name)) for group in groups.values()]


def _difference(names: Sequence[str]) -> str:
    """The slightest difference that there is between names of one SAME form."""
    return next(how for how, form in SAME.items() if len({form(name) for name in names}) == 1)


def _misspelt(counts: Mapping[str, int]) -> list[Twins]:
    """Rare labels a letter or two from a commoner one, with the nearest of those."""
    from rapidfuzz.distance import OSA
    from rapidfuzz.process import cdist

    by_size = sorted(counts, key=lambda name: (-counts[name], name))
    letters = [re.sub(r"[\W_]", "", name).casefold() for name in by_size]
    sizes = np.array([counts[name] for name in by_size])
    found = []
    for place, name in enumerate(by_size):
        n_commoner = int((sizes * RARE_SHARE >= sizes[place]).sum())  # they come first
        if not n_commoner or len(letters[place]) < FEWEST_LETTERS:
            continue
        distances = cdist([letters[place]], letters[:n_commoner], scorer=OSA.distance, score_cutoff=2)[0]
        near = [i for i in np.flatnonzero(distances <= 2) if _may_be(name, by_size[i], int(distances[i]))]
        if near:
            found.append(Twins(by_size[min(near, key=lambda i: distances[i])], (name,), MISSPELLING, False))
    return found


def _may_be(one: str, other: str, distance: int) -> bool:
    """Whether so many letters apart is near for names of their length, with the same numbers in both."""
    lengths = [len(re.sub(r"[\W_]", "", name).casefold()) for name in (one, other)]
    allowed = 1 if max(lengths) < 8 else 2
    same_numbers = re.findall(r"\d+", one) == re.findall(r"\d+", other)
    return same_numbers and min(lengths) >= FEWEST_LETTERS and 0 < distance <= allowed


def _case(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()


def _spaces(name: str) -> str:
    """Without case and without the white space beside a letter; "10²" is not "102", and "1 5" not "15"."""
    usual = "".join(c if unicodedata.category(c) == "No" else unicodedata.normalize("NFKC", c) for c in name)
    single = " ".join(unicodedata.normalize("NFC", usual).lower().split())
    return re.sub(rf"(?<={LETTER}) (?=\w)|(?<=\w) (?={LETTER})", "", single)


def _number(name: str) -> str:
    """A whole number in one way: "2.0", "02", "+2" and "two" are "2"; anything else is itself.

    Not 1.10 as 1.1: that may be a section, or a version.
    """
    name = _spaces(name)
    whole = re.fullmatch(r"([+-]?\d{1,15})(\.0{1,15})?", SPELLED.get(name, name), re.ASCII)
    return str(int(whole[1])) if whole else name


def _plain(name: str) -> str:
    """Also without accents, and without "_", "-", ".", "/" and spaces between letters; all other signs may mean."""
    decomposed = unicodedata.normalize("NFD", _number(name))
    bare = unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))
    return re.sub(rf"(?<={LETTER})[\s_./-]+(?={LETTER})", "", bare)


# in what two labels may differ that are one class -> the form in which they are the same, each wider than the last
SAME: dict[str, Callable[[str], str]] = {
    "Unicode form": lambda name: unicodedata.normalize("NFC", name),
    "case": _case,
    "white space or Unicode form": _spaces,
    "how a number is written": _number,
}
