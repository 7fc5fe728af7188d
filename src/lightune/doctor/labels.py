"""Labels that may be one class written in two ways, and classes of few rows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np

from lightune.doctor.exam import SHOWN, Exam, Symptom
from lightune.doctor.findings import Severity

FEW_ROWS = 10  # of a class: fewer can neither be learned nor tested
SPELLED = {"zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
SPELLED |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
RARE_SHARE = 0.2  # a misspelt label has at most so many rows for each of the right one's
FEWEST_LETTERS = 5  # of a label that may be misspelt: "cat" and "car" are two words


def alike(exam: Exam) -> list[Symptom]:
    counts = {name: n for name, n in exam.patient.labels.counts().items() if name}
    found = []
    for rarer, other, how in twins(counts):
        what = f"label {rarer!r} ({counts[rarer]:,} rows) and {other!r} ({counts[other]:,}) differ in {how} only"
        places = np.flatnonzero(exam.patient.labels.codes == exam.patient.labels.names.index(rarer))
        found.append(Symptom("error", len(places), what, places, "relabel", other))
    return found


def rare(exam: Exam) -> list[Symptom]:
    counts = {name: n for name, n in exam.patient.labels.counts().items() if name}
    few = {name: n for name, n in counts.items() if n < FEW_ROWS}
    if not few:
        return []
    shown = ", ".join(f"{name!r} ({n})" for name, n in sorted(few.items(), key=lambda each: each[1])[:SHOWN])
    more = f" and {len(few) - SHOWN} more" if len(few) > SHOWN else ""
    codes = [exam.patient.labels.names.index(name) for name in few]
    places = np.flatnonzero(np.isin(exam.patient.labels.codes, codes))
    severity: Severity = "error" if min(few.values()) == 1 else "warning"
    what = f"{len(few):,} of {len(counts):,} classes have fewer than {FEW_ROWS} rows: {shown}{more}"
    return [Symptom(severity, len(few), what, places)]


def absent(exam: Exam) -> list[Symptom]:
    present = [
        set(exam.patient.labels.take(np.flatnonzero(exam.patient.split_of == i)).counts()) - {""}
        for i in range(len(exam.patient.tables))
    ]
    found = []
    for name, here in list(zip(exam.patient.tables, present, strict=True))[1:]:
        gaps: tuple[tuple[set[str], Severity, str], ...] = (
            (here - present[0], "error", f"of split {name} are not in the training rows"),
            (present[0] - here, "note", f"of the training rows are not in split {name}"),
        )
        for missing, severity, what in gaps:
            if missing:
                shown = ", ".join(map(repr, sorted(missing)[:SHOWN]))
                sentence = f"{len(missing):,} classes {what}: {shown}"
                found.append(Symptom(severity, len(missing), sentence))
    return found


def twins(counts: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Pairs of labels that look like one, the rarer first, and in what they differ. counts: label -> rows."""
    found = []
    for one, other in combinations(counts, 2):
        rarer, other = sorted((one, other), key=lambda name: (counts[name], name))
        if how := _difference(rarer, other, counts[rarer] / max(1, counts[other])):
            found.append((rarer, other, how))
    return found


def _difference(rarer: str, other: str, ratio: float) -> str:
    """In what two labels differ that look like one; "" if they do not."""
    for how, form in FORMS.items():
        if form(rarer) == form(other):
            return how
    return "a letter or two" if ratio <= RARE_SHARE and _is_misspelling(rarer, other) else ""


def _is_misspelling(one: str, other: str) -> bool:
    from rapidfuzz.distance import OSA

    letters = [re.sub(r"[\W_]", "", name).casefold() for name in (one, other)]
    if min(map(len, letters)) < FEWEST_LETTERS or re.findall(r"\d+", one) != re.findall(r"\d+", other):
        return False
    allowed = 1 if max(map(len, letters)) < 8 else 2
    return 0 < OSA.distance(*letters, score_cutoff=allowed) <= allowed


def _number(name: str) -> str:
    """A number in one way: "2.0", "02", "+2" and "two" are "2"; anything else is itself."""
    name = SPELLED.get(name.casefold(), name)
    if not re.fullmatch(r"[+-]?\d{1,15}(\.\d{1,15})?", name, re.ASCII):
        return name
    return f"{float(name):g}"


def _plain(name: str) -> str:
    """Without case, accents, white space and punctuation."""
    decomposed = unicodedata.normalize("NFKD", name).casefold()
    return "".join(character for character in decomposed if character.isalnum())


# in what two labels may differ -> the form in which they are the same, from the slightest difference on
FORMS: dict[str, Callable[[str], str]] = {
    "Unicode form": lambda name: unicodedata.normalize("NFC", name),
    "case": lambda name: unicodedata.normalize("NFC", name).casefold(),
    "white space or Unicode form": lambda name: "".join(unicodedata.normalize("NFKC", name).casefold().split()),
    "how a number is written": _number,
    "punctuation or accents": lambda name: _plain(name) or name,
}
