"""The shape of results.json; its JSON Schema is published in schemas/results.schema.json."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lightune.doctor.findings import Finding
from lightune.evidence.verdict import Outcome
from lightune.recipe import Task


class Strict(BaseModel):
    """Base of the parts: nothing unknown, no NaN."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ScoreRecord(Strict):
    """A metric with its 95 % interval."""

    value: float
    low: float
    high: float


class ProofRecord(Strict):
    """A fresh process reloaded the adapter and answered the same texts."""

    rows: int
    max_logit_difference: float
    tolerance: float
    passed: bool


class DataRecord(Strict):
    """Where the rows came from, and which columns were used."""

    source: str
    test: str | None
    digest: str = Field(description="sha256 of the source as it was read")
    test_digest: str | None = Field(description="of the separate test data, if any")
    revision: str | None
    text: str
    pair: str | None = Field(None, description="the second text, where there are two")
    label: str


class ModelRecord(Strict):
    """The base model."""

    name: str
    revision: str | None
    digest: str = Field(description="sha256 of the safetensors files")
    architecture: str


class DecisionRecord(Strict):
    """A choice that was made for the user, and why."""

    what: str
    choice: str
    why: str


class SpeedRecord(Strict):
    """Tokens per second, padding not counted."""

    train: float
    evaluate: float


class BaselineRecord(Strict):
    """What learned from the same training rows, at next to no cost, and answered the same test rows."""

    title: str
    scores: dict[str, ScoreRecord]
    n_train: int = Field(description="training rows that it learned from")
    chosen: dict[str, float] = Field(description="settings that dev rows chose")
    seconds: float


class ComparisonRecord(Strict):
    """The tuned classifier against another's answers to the same rows."""

    measure: str = Field(
        description="what is compared: accuracy or, of several labels a row, f1_micro or, of numbers, mae"
    )
    gain: ScoreRecord = Field(
        description="the tuned one's less the other's, of mae the other way round; paired bootstrap interval"
    )
    fixed: int = Field(
        description="rows that the tuned one alone has right; several labels: has fewer wrong; numbers: is nearer"
    )
    broken: int = Field(description="rows that the other alone has right, has fewer wrong labels of, or is nearer")
    p_value: float = Field(
        description="McNemar's exact test or, of several labels and of numbers, a permutation test; two-sided"
    )
    p_adjusted: float = Field(description="the same after Holm's correction for all comparisons of the run")
    detectable: float | None = Field(description="smallest gain found four times in five; null: none could be")
    outcome: Outcome
    words: str


class BinRecord(Strict):
    """Test rows whose answer has a probability in [low, high); multi_label: each label of each row is an answer."""

    low: float
    high: float
    n: int
    confidence: float = Field(description="their mean probability")
    accuracy: float


class GoalRecord(Strict):
    """What comes of answering only where dev rows said that a goal is met."""

    what: str
    thresholds: dict[str, float | None] = Field(description="lowest probability of each label; null: never given")
    answered: ScoreRecord = Field(description="share of the test rows that get a label")
    reached: dict[str, ScoreRecord | None] = Field(
        description="label -> precision on test rows, null where it is not given; `all`: accuracy of all answers"
    )


class ConformalRecord(Strict):
    """Sets of labels."""

    level: float
    threshold: float
    covered: ScoreRecord = Field(description="share of the test rows whose set holds the true label")
    mean_size: float


class IntervalRecord(Strict):
    """Intervals around answers that are numbers."""

    level: float
    half_width: float | None = Field(description="null: too few dev rows for this level")
    n_dev: int | None = Field(description="dev rows that the width is of; null: not known any more")
    covered: ScoreRecord | None = Field(description="share of the test rows whose label is in its interval")


class CalibrationRecord(Strict):
    """What dev rows taught about the probabilities, and what it came to on the test rows."""

    temperature: float
    n_dev: int
    uncalibrated: dict[str, ScoreRecord]
    calibrated: dict[str, ScoreRecord]
    bins_uncalibrated: list[BinRecord]
    bins: list[BinRecord]
    goal: GoalRecord | None
    conformal: ConformalRecord | None


class GridRecord(Strict):
    """Test rows by label and answer, in squares of one width from low to high; the outermost hold what is beyond."""

    low: float
    high: float
    counts: list[list[int]] = Field(description="a row for each part of the answers, a column for each of the labels")


class LabelRecord(Strict):
    """One of several labels a row: how it is given."""

    label: str
    n: int = Field(description="test rows that have it")
    threshold: float | None = Field(description="lowest probability with which it is given; null: never")
    precision: float | None = Field(description="share of the rows given it that have it; null: given to none")
    recall: float | None = Field(description="share of the rows that have it that are given it; null: no row has it")
    f1: float
    f1_before: float


class SliceRecord(Strict):
    """The test rows with one value of a kind, held against all others."""

    kind: str = Field(description="class, or label where it is a number; length; or column NAME")
    value: str
    n: int
    measure: str = Field(description="accuracy or, of numbers, mae")
    score: ScoreRecord
    others: float = Field(description="the same of the other test rows")
    p_value: float = Field(description="Fisher's exact test or, of numbers, Welch's; two-sided")
    p_adjusted: float = Field(description="the same after Holm's correction for all slices of the run")
    outcome: Outcome


class SeedsRecord(Strict):
    """The same training under several seeds, on the same split: how much chance in it matters."""

    seeds: list[int]
    scores: dict[str, list[float]] = Field(description="metric -> one value a seed")
    mean: dict[str, float]
    deviation: dict[str, float] = Field(description="standard deviation between seeds, with n - 1")


class RequirementRecord(Strict):
    """What the run had to show, and why it does not; an empty `why` if it does."""

    what: str
    passed: bool
    why: str


class Results(Strict):
    """Everything a run measured; the pictures and the card are made from this alone."""

    format_version: Literal[1] = 1
    lightune: str
    task: Task = "single_label"
    labels: list[str]
    n_train: int
    n_dev: int
    n_test: int
    before: dict[str, ScoreRecord]
    after: dict[str, ScoreRecord]
    baselines: dict[str, BaselineRecord]
    comparisons: dict[str, ComparisonRecord] = Field(description="by `before` and the names of baselines")
    verdict: str = Field(description="the comparison with the strongest other, in words")
    requirements: list[RequirementRecord]
    calibration: CalibrationRecord | None = Field(None, description="of probabilities")
    intervals: IntervalRecord | None = Field(None, description="regression: around the answers")
    seeds: SeedsRecord | None = None
    slices: list[SliceRecord] = Field([], description="of enough rows")
    worst_slice: str | None = Field(None, description="the slice furthest behind, in words; null: none beyond chance")
    label_errors: Finding | None = Field(None, description="training rows whose label is likely wrong, surest first")
    not_applicable: dict[str, str] = Field(description="metric -> why it has no value on these rows")
    confusion: dict[Literal["before", "after"], list[list[int]]] = Field(
        description="rows true, columns predicted; multi_label: a row for each label, of how many rows it is given "
        "and there, given but not there, not given but there, neither; regression: none"
    )
    answers: dict[Literal["before", "after"], GridRecord] = Field(
        {}, description="regression: which answers how many labels got"
    )
    by_label: list[LabelRecord] = Field([], description="multi_label: how each is given")
    curve: list[dict[str, int | float]]
    dev_curve: list[dict[str, int | float]]
    best_step: int
    n_steps: int
    stopped_early: bool
    trainable_parameters: int
    total_parameters: int
    seconds: dict[str, float] = Field(description="wall time by phase, and total")
    estimated_seconds: float = Field(description="what was announced before the work, for everything after the plan")
    tokens_per_second: SpeedRecord
    peak_memory_bytes: int = Field(description="the most that was held of the GPU's memory, or of RAM without one")
    proof: ProofRecord
    data: DataRecord
    model: ModelRecord
    decisions: list[DecisionRecord]
    recipe: dict[str, Any] = Field(description="the resolved recipe")
