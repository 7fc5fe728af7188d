"""Labels that are to be numbers: those that are none, and those far from all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightune.data.targets import is_number
from lightune.doctor.exam import SHOWN, Exam, Symptom, quoted, share

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAR = 10  # times the width of the middle 98 % of the labels
FEWEST = 50  # numbers that have a middle


def unlike(exam: Exam) -> list[Symptom]:
    """Labels of numbers or grades that are no numbers, or too large or small to be learned."""
    if exam.patient.task not in ("regression", "ordinal"):
        return []
    odd = [name for name in exam.patient.labels.counts() if name and not is_number(name)]
    if not odd:
        return []
    places = _places(exam, odd)
    shown = ", ".join(map(quoted, odd[:SHOWN])) + (f" and {len(odd) - SHOWN} more" if len(odd) > SHOWN else "")
    what = f"{share(len(places), len(exam.patient))} have a label that is no number to learn: {shown}"
    return [Symptom("error", len(places), what, places)]


def far_off(exam: Exam) -> list[Symptom]:
    """Numbers far from the middle of all, which decide the scale and the score by themselves."""
    if exam.patient.task != "regression":
        return []
    names, codes = exam.patient.labels.names, exam.patient.labels.codes
    values = np.array([float(name) if name and is_number(name) else np.nan for name in names])[codes]
    known = values[~np.isnan(values)]
    if len(known) < FEWEST:
        return []
    low, middle, high = np.quantile(known, [0.01, 0.5, 0.99])
    places = np.flatnonzero(np.abs(values - middle) > FAR * (high - low))
    if high == low or not len(places):
        return []
    shown = ", ".join(f"{value:g}" for value in values[places[:SHOWN]])
    what = f"{share(len(places), len(values))} have a label far from all others, such as {shown}; 98 % lie in "
    return [Symptom("warning", len(places), f"{what}{low:g} to {high:g}", places)]


def _places(exam: Exam, names: list[str]) -> NDArray[np.int64]:
    wanted = set(names)
    codes = [code for code, name in enumerate(exam.patient.labels.names) if name in wanted]
    return np.flatnonzero(np.isin(exam.patient.labels.codes, codes))
