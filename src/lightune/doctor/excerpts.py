"""A few of the rows that a finding is about, for those who ask to see texts."""

from __future__ import annotations

import numpy as np

from lightune.doctor.exam import MOST_SHOWN
from lightune.doctor.findings import Diagnosis, Example, Finding
from lightune.doctor.patient import Patient
from lightune.legible import in_a_line, visible

EXAMPLES, LINE = 3, 160  # rows of a finding that are shown of a split, and characters of each


def with_examples(diagnosis: Diagnosis, patient: Patient) -> Diagnosis:
    """The same findings, each with a few of its rows; patient: all rows of what the diagnosis is about."""
    starts = np.cumsum([0, *(table.num_rows for table in patient.tables.values())]).tolist()
    start_of = dict(zip(patient.tables, starts, strict=False))
    found = [_illustrated(finding, patient, start_of) for finding in diagnosis.findings]
    return diagnosis.model_copy(update={"findings": found})


def _illustrated(finding: Finding, patient: Patient, start_of: dict[str, int]) -> Finding:
    examples = {
        split: [_example(patient, start_of[split], row) for row in rows[:EXAMPLES]]
        for split, rows in finding.rows.items()
    }
    return finding.model_copy(update={"examples": examples})


def _example(patient: Patient, start: int, row: int) -> Example:
    label = patient.labels.names[patient.labels.codes[start + row]]
    text = patient.texts[start + row] or ""
    return Example(row=row, label=visible(in_a_line(label, MOST_SHOWN)), text=visible(in_a_line(text, LINE)))
