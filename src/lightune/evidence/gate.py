"""Requirements such as "accuracy>tfidf" or "f1_macro>=0.8": what a run must show, or it ends with exit code 3."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lightune.data.targets import NUMBER
from lightune.errors import GateError, UserError, near_match
from lightune.evidence.decisions import task_of
from lightune.evidence.metrics import METRICS, prediction_of
from lightune.evidence.score import MEASURES, TABLES, find, paired_difference_of
from lightune.evidence.set_metrics import SET_METRICS
from lightune.evidence.value_metrics import GRADE_METRICS, VALUE_METRICS
from lightune.evidence.verdict import compare, in_words
from lightune.legible import figures
from lightune.recipe import Task

SIGNS = {">": gt, ">=": ge, "<": lt, "<=": le}
FLIPPED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
OUTCOMES = {  # of the verdict, which "better" and "worse" are about
    ">": ("better",),
    ">=": ("better", "not distinguishable"),
    "<": ("worse",),
    "<=": ("worse", "not distinguishable"),
}
KNOWN = GRADE_METRICS | VALUE_METRICS | SET_METRICS | METRICS
FORM = re.compile(r"\s*(\w+)\s*([<>]=?)\s*(\S+)\s*")


@dataclass(frozen=True)
class Requirement:
    """A metric of the tuned classifier, and the number or the name of the answers that it is held against."""

    metric: str
    sign: str
    than: float | str

    def __str__(self) -> str:
        than = self.than if isinstance(self.than, str) else f"{self.than:g}"
        return f"{self.metric}{self.sign}{than}"


def parse(texts: Sequence[str], others: Collection[str]) -> list[Requirement]:
    """The requirements that were typed. others: whose answers there will be.

    Raises UserError for one that is not understood, or names no metric or nobody known.
    """
    return [_parse(text, others) for text in texts]


def _parse(text: str, others: Collection[str]) -> Requirement:
    found = FORM.fullmatch(text)
    if not found:
        raise UserError(
            f"require {text!r}: not understood. Write METRIC>NUMBER or METRIC>NAME, as in accuracy>tfidf."
        )
    metric, sign, than = found.groups()
    if metric not in KNOWN:
        raise UserError(f"require {text!r}: no metric {metric!r}.{near_match(metric, KNOWN)} See: lightune metrics")
    if NUMBER.fullmatch(than):
        low, high, number = KNOWN[metric].low, KNOWN[metric].high, float(than)
        if not any(SIGNS[sign](value, number) for value in (low, high)):
            raise UserError(f"require {text!r}: can never be, {metric} lies between {low:g} and {high:g}.")
        return Requirement(metric, sign, number)
    if than not in others:
        hint = near_match(than, others)
        raise UserError(
            f"require {text!r}: {than!r} is no number and nobody here.{hint} There are {', '.join(others)}."
        )
    return Requirement(metric, sign, than)


def check_task(requirements: Sequence[Requirement], task: Task) -> None:
    """UserError for a metric that labels of this task do not have."""
    for each in requirements:
        if each.metric not in TABLES[task]:
            there = ", ".join(TABLES[task])
            raise UserError(f"require {str(each)!r}: {each.metric} is no metric of a {task} task. There are {there}.")


class Given(Protocol):
    """What somebody answered: probabilities (N, C), and answers as `decide` gives them."""

    @property
    def proba(self) -> np.ndarray: ...
    @property
    def answers(self) -> np.ndarray: ...


def shortfall(
    required: Requirement, y_true: np.ndarray, ours: Given, others: Mapping[str, Given], *, seed: int
) -> str:
    """Why it is not so, "" if it is. ours and others: on the same rows; y_true: as for `score_all`.

    Against a number the value itself counts. Against others' answers > and < ask for a difference beyond chance,
    >= and <= for none to the contrary: of what the verdict compares (accuracy, F1 of several labels a row, the mean
    error of numbers) by the verdict, of other metrics by the paired 95 % interval.
    """
    task, holds = task_of(y_true), SIGNS[required.sign]
    metric = find(required.metric, task)
    write = figures if math.isinf(metric.high) else _share
    if obstacle := metric.obstacle(y_true, ours.proba.shape[1]):
        return f"{required.metric} has no value here ({obstacle})"
    if isinstance(required.than, float):
        value = metric.compute(y_true, prediction_of(metric, ours.proba, ours.answers))
        return "" if holds(value, required.than) else f"{required.metric} is {write(value)}"
    if required.metric == MEASURES[task]:
        theirs = {name: other.answers for name, other in others.items()}
        comparison = compare(y_true, ours.answers, theirs, seed=seed)[required.than]
        met = (
            comparison.outcome in OUTCOMES[required.sign if metric.direction == "higher" else FLIPPED[required.sign]]
        )
        return "" if met else in_words(required.than, comparison, len(y_true))
    other = others[required.than]
    pairs = (ours.proba, ours.answers), (other.proba, other.answers)
    gain = paired_difference_of(required.metric, y_true, *pairs, seed=seed)
    # the end of the interval that is the harder to pass for > and <, the easier one for >= and <=
    end = gain.low if required.sign in (">", "<=") else gain.high
    if holds(end, 0):
        return ""
    told = [write(each, sign="+") for each in (gain.value, gain.low, gain.high)]
    return f"the difference is {told[0]} (95 % CI {told[1]} to {told[2]})"


def _share(value: float, sign: str = "") -> str:
    return f"{value:{sign}.4f}"


def keep(records: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Raises GateError if one of the requirements, as results.json has them, was not met. folder: of the run."""
    missed = [f"{record['what']}: {record['why']}" for record in records if not record["passed"]]
    if missed:
        raise GateError("required and not so: " + "; ".join(missed) + f". The run is kept in {folder}.")
