"""What a run finds out about its data after the first glance: from its tokens, and from its base's embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightune.data.batching import Encoder, Labelled
from lightune.doctor.checks import finding
from lightune.doctor.findings import MOST_ROWS, Diagnosis
from lightune.doctor.label_errors import wrong_labels_in_run
from lightune.doctor.truncation import unread_in_run
from lightune.evidence.baselines import Lesson
from lightune.evidence.decisions import task_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def with_truncation(diagnosis: Diagnosis, rows: Mapping[str, Labelled], encoder: Encoder) -> Diagnosis:
    """With what the run's own length limit cuts away, split by split."""
    found = [finding("truncation", symptom, {}) for symptom in unread_in_run(rows, encoder)]
    return diagnosis.followed_up("truncation", found)


def with_label_errors(
    diagnosis: Diagnosis, lesson: Lesson, numbers: Sequence[int], names: Sequence[str], *, seed: int
) -> Diagnosis:
    """With the training labels that are likely wrong, or with why none could be named.

    numbers (N,) of the training rows in the source; names: of the classes by id.
    """
    unlike = {"multi_label": "rows have several labels", "regression": "labels are numbers"}
    if (task := task_of(lesson.y_train)) in unlike:
        return diagnosis.followed_up("label_errors", [], unlike[task])
    found = wrong_labels_in_run(lesson, np.asarray(numbers, np.int64), names, seed=seed)
    if isinstance(found, str):
        return diagnosis.followed_up("label_errors", [], found)
    split = next(iter(diagnosis.rows))
    findings = [finding("label_errors", each, {split: _listed(each.places)}) for each in found]
    return diagnosis.followed_up("label_errors", findings)


def _listed(places: Sequence[int] | NDArray[np.int64]) -> list[int]:
    return [int(place) for place in places[:MOST_ROWS]]
