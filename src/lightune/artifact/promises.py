"""What a classifier promises of its answers, held against labelled rows: goals, sets of labels, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightune.artifact.results import ConformalRecord, GoalRecord, IntervalRecord, ScoreRecord
from lightune.evidence.calibration import Calibration, is_answered, label_sets
from lightune.evidence.decisions import decide, right_rows
from lightune.evidence.statistics import wilson
from lightune.records import Evaluation


def goal_kept(found: Calibration, seen: Evaluation, labels: Sequence[str]) -> GoalRecord | None:
    """What answering only where a goal is met comes to on labelled rows; None without a goal."""
    if found.goal is None:
        return None
    y_true, proba, answer = seen.y_true, seen.proba, seen.answers
    if y_true.ndim == 2:
        answer = decide(proba, "multi_label", found.thresholds)
        given = {label: _share(y_true[answer[:, c], c].astype(bool)) for c, label in enumerate(labels)}
        return GoalRecord(
            what=str(found.goal),
            thresholds=dict(zip(labels, found.thresholds, strict=True)),
            answered=_share(answer.any(axis=1)) or ScoreRecord(value=0, low=0, high=0),
            reached=given,
        )
    answered, right = is_answered(proba, found.thresholds), right_rows(y_true, answer)
    reached = {label: _share(right[answered & (answer == c)]) for c, label in enumerate(labels)}
    return GoalRecord(
        what=str(found.goal),
        thresholds=dict(zip(labels, found.thresholds, strict=True)),
        answered=_share(answered) or ScoreRecord(value=0, low=0, high=0),
        reached=reached if found.goal.what == "precision" else {"all": _share(right[answered])},
    )


def sets_kept(found: Calibration, seen: Evaluation) -> ConformalRecord | None:
    """How often sets of labels hold the true one; None without such sets."""
    if found.level is None or found.set_threshold is None:
        return None
    members = label_sets(seen.proba, found.set_threshold)
    covered = _share(members[np.arange(len(seen.y_true)), seen.y_true])
    assert covered is not None
    mean_size = float(members.sum(axis=1).mean())
    return ConformalRecord(level=found.level, threshold=found.set_threshold, covered=covered, mean_size=mean_size)


def intervals_kept(found: Calibration, seen: Evaluation) -> IntervalRecord | None:
    """How often the interval around a number holds the label; None where answers are no numbers."""
    if found.level is None or seen.y_true.dtype.kind != "f":
        return None
    is_inside = np.abs(seen.y_true - seen.answers) <= (found.half_width or 0.0)
    covered = None if found.half_width is None else _share(is_inside)
    return IntervalRecord(level=found.level, half_width=found.half_width, n_dev=found.n_dev or None, covered=covered)


def _share(flags: Any) -> ScoreRecord | None:
    """The share of rows that are so, with Wilson's interval; None of no rows."""
    if not len(flags):
        return None
    low, high = wilson(int(flags.sum()), len(flags))
    return ScoreRecord(value=float(flags.mean()), low=low, high=high)
