"""The doctor's visit: read every row once, make every check, write down what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightune import __version__
from lightune.data.values import Texts
from lightune.doctor.checks import CHECKS, chosen, finding, look
from lightune.doctor.exam import Exam, Symptom
from lightune.doctor.findings import MOST_ROWS, ROWS_ONLY, Diagnosis
from lightune.doctor.patient import Patient
from lightune.doctor.reading import read_through
from lightune.errors import UserError, near_match

if TYPE_CHECKING:
    from lightune.doctor.embedded import Embed
    from lightune.doctor.tokenised import Tokeniser

ALL_ROWS, SAMPLE_ROWS = 2000, 1000  # of data that a run looks at as a whole, and of a split of more
BY_LABEL = (
    "label_twins",
    "missing_labels",
    "far_numbers",
    "single_class",
    "rare_classes",
    "absent_classes",
)  # need no text
TOLD_BY_SPLITS = ("empty", "duplicates", "leaks", "contradictions")  # when rows are chosen and split
NO_GLANCE = {  # what a run does not look for -> why
    **dict.fromkeys(TOLD_BY_SPLITS, "a run says what it keeps of such rows; `lightune check` names them"),
    "label_errors": "takes longer; `lightune check` does it",
    "truncation": "the texts were not tokenised yet",
}


def examine(
    patient: Patient,
    *,
    checks: Sequence[str] | None = None,
    group: str | None = None,
    embed: Embed | None = None,
    tokeniser: Callable[[], Tokeniser] | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda n_rows: None,
) -> tuple[Diagnosis, list[tuple[str, Symptom]]]:
    """What is wrong with the data by all CHECKS or those named, to be read and, with every row, to be repaired.

    group: a column that says what a row is about; embed: from texts to embeddings, for wrong labels; tokeniser: for
    what a length limit costs; seed: of what is looked at where not every row is. Raises UserError for a check or a
    column that is not there.
    """
    started = time.monotonic()
    names = chosen(checks)
    if group is not None:
        _check_group(patient, group)
    exam = Exam(patient, patient.read(advance), seed, group, embed, tokeniser)
    symptoms = list(look(exam, names))
    return _diagnosis(patient, [(exam, symptoms)], exam.left_out, started), symptoms


def _check_group(patient: Patient, group: str) -> None:
    """UserError unless every split has the column, with plain values."""
    import pyarrow.types as kinds

    for split, table in patient.tables.items():
        if group not in table.column_names:
            hint = near_match(group, table.column_names)
            raise UserError(f"--group {group}: split {split} has no such column.{hint} Found: {table.column_names}.")
        kind = table.schema.field(group).type
        if not kinds.is_string(kind):
            raise UserError(f"--group {group}: holds {kind}, no plain values. Name a column that does.")


def glance(patient: Patient, *, seed: int) -> Diagnosis:
    """What can be seen in about a second: everything of few rows; of many, the labels, and the texts of a sample."""
    started = time.monotonic()
    names = [name for name in CHECKS if name not in NO_GLANCE]
    if len(patient) <= ALL_ROWS:
        exam = Exam(patient, patient.read(), seed)
        found = [(exam, list(look(exam, names)))]
        return _diagnosis(patient, found, NO_GLANCE | exam.left_out, started)
    few = patient.sample(SAMPLE_ROWS, np.random.default_rng(seed))
    whole, part = Exam(patient, read_through(Texts.of([])), seed), Exam(few, few.read(), seed)
    by_label = [name for name in names if name in (*BY_LABEL, "encoding")]
    by_sample = [name for name in names if CHECKS[name].by_sample]
    found = [(whole, list(look(whole, by_label))), (part, list(look(part, by_sample)))]
    rest = [name for name in names if name not in (*by_label, *by_sample)]
    left_out = NO_GLANCE | dict.fromkeys(rest, "takes longer; `lightune check` does it")
    left_out |= dict.fromkeys(by_sample, f"on {len(few):,} of {len(patient):,} {ROWS_ONLY}") | part.left_out
    return _diagnosis(patient, found, left_out, started)


def _diagnosis(
    patient: Patient, found: list[tuple[Exam, list[tuple[str, Symptom]]]], left_out: dict[str, str], started: float
) -> Diagnosis:
    return Diagnosis(
        lightune=__version__,
        source=patient.source,
        digest=patient.digest,
        text=patient.text,
        pair=patient.pair,
        label=patient.label,
        rows={name: table.num_rows for name, table in patient.tables.items()},
        findings=[
            finding(check, symptom, exam.patient.rows_by_split(np.asarray(symptom.places, np.int64), MOST_ROWS))
            for exam, symptoms in found
            for check, symptom in symptoms
        ],
        left_out=left_out,
        seconds=round(time.monotonic() - started, 3),
    )
