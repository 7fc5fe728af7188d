"""The doctor's visit: read every row once, make every check, write down what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lightune import __version__
from lightune.doctor.checks import CHECKS, finding, look
from lightune.doctor.exam import Exam, Symptom
from lightune.doctor.findings import Diagnosis
from lightune.doctor.patient import Patient
from lightune.doctor.reading import read_through
from lightune.errors import UserError, near_match

if TYPE_CHECKING:
    from lightune.doctor.embedded import Embed


def examine(
    patient: Patient,
    *,
    checks: Sequence[str] | None = None,
    group: str | None = None,
    embed: Embed | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda n_rows: None,
) -> tuple[Diagnosis, list[tuple[str, Symptom]]]:
    """What is wrong with the data by all CHECKS or those named, to be read and, with every row, to be repaired.

    group: a column that says what a row is about; embed: from texts to embeddings, for wrong labels; seed: of what is
    looked at where not every row is. Raises UserError for a check or a column that is not there.
    """
    started = time.monotonic()
    for name in checks or ():
        if name not in CHECKS:
            raise UserError(f"check {name!r}: not known.{near_match(name, CHECKS)} There are {', '.join(CHECKS)}.")
    for split, table in patient.tables.items():
        if group is not None and group not in table.column_names:
            hint = near_match(group, table.column_names)
            raise UserError(f"--group {group}: split {split} has no such column.{hint} Found: {table.column_names}.")
    exam = Exam(patient, read_through(patient.texts, advance), seed, group, embed)
    symptoms = list(look(exam, checks))
    diagnosis = Diagnosis(
        lightune=__version__,
        source=patient.source,
        digest=patient.digest,
        text=patient.text,
        label=patient.label,
        rows={name: table.num_rows for name, table in patient.tables.items()},
        findings=[finding(exam, check, symptom) for check, symptom in symptoms],
        left_out=exam.left_out,
        seconds=round(time.monotonic() - started, 3),
    )
    return diagnosis, symptoms
