"""Rows that say nothing, were read wrongly, are in another language, or hold what is personal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lightune.doctor.exam import SHOWN, Exam, Symptom, share
from lightune.doctor.findings import Fix, Severity
from lightune.doctor.reading import PERSONAL

# texts whose language is looked at, and the shortest of them: 20 letters of Japanese say as much as 60 of English
LANGUAGE_ROWS, LANGUAGE_BYTES = 3000, 60
SURE_OF_LANGUAGE = 0.9
FEWEST_TEXTS = 20  # that are so long
FEW = 0.002  # of the rows: what hardly matters


def encoding(exam: Exam) -> list[Symptom]:
    patient = exam.patient
    if patient.encoding is None:
        return []
    count = sum(not (text or "").isascii() for text in patient.texts)
    what = f"{patient.source} is not UTF-8; it was read as {patient.encoding}: {count:,} texts depend on that"
    return [Symptom("warning", count, what)]


def empty(exam: Exam) -> list[Symptom]:
    found = []
    blank = exam.readings.flags["blank"] & exam.labelled
    for places, what in ((blank, "no text"), (~exam.labelled, "no label")):
        count = int(places.sum())
        if count:
            sentence = f"{share(count, len(exam.patient))} have {what}"
            found.append(Symptom("warning", count, sentence, np.flatnonzero(places), "drop"))
    return found


def flagged(flag: str, severity: Severity, what: str, fix: Fix | None = None) -> Callable[[Exam], list[Symptom]]:
    """A check for texts with a flag of FLAGS; a note, whatever the severity, if they are few."""

    def look_at(exam: Exam) -> list[Symptom]:
        places = np.flatnonzero(exam.readings.flags[flag] & exam.usable)
        sentence = f"{share(len(places), len(exam.patient))} {what}"
        own = severity if len(places) > FEW * len(exam.patient) else "note"
        return [Symptom(own, len(places), sentence, places, fix)] if len(places) else []

    return look_at


def languages(exam: Exam) -> list[Symptom]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    places = exam.sample(10 * LANGUAGE_ROWS)
    places = places[exam.readings.n_bytes[places] >= LANGUAGE_BYTES]
    if len(places) < FEWEST_TEXTS:
        exam.left_out["languages"] = f"fewer than {FEWEST_TEXTS} texts of {LANGUAGE_BYTES} bytes"
        return []
    places = np.sort(exam.rng.permutation(places)[:LANGUAGE_ROWS])
    identify = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify
    found = [identify((text or "")[:1000]) for text in exam.patient.texts.take(places)]
    spoken = np.array([language for language, sure in found])
    sure = np.array([float(p) for _, p in found]) >= SURE_OF_LANGUAGE
    names, counts = np.unique(spoken[sure], return_counts=True)
    if len(names) < 2:
        return []
    main = names[counts.argmax()]
    odd = sure & (spoken != main)
    shown = ", ".join(
        f"{name} {n}" for n, name in sorted(zip(counts, names, strict=True), reverse=True)[1 : SHOWN + 1]
    )
    what = f"{int(odd.sum()):,} of {len(places):,} texts looked at are not in the language of most, {main}: {shown}"
    return [Symptom("note", int(odd.sum()), what, places[odd])]


def personal(exam: Exam) -> list[Symptom]:
    found = []
    for name in PERSONAL:
        places = np.flatnonzero(exam.readings.flags[name])
        if len(places):
            what = f"{share(len(places), len(exam.patient))} hold what looks like {name}"
            found.append(Symptom("note", len(places), what, places))
    return found
