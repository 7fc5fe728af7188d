"""The values that cross from one stage to the next. No logic, no input or output, no torch at import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Decision:
    """One choice that was made for the user: printed while the work goes on and stored with the run."""

    what: str
    choice: str
    why: str


@dataclass(frozen=True)
class Corpus:
    """A data source as it was read: nothing dropped, nothing converted but encodings.

    tables: split name -> table whose text columns are exactly the source's text. A source without splits has
    one table, "train". class_names: column -> names, where the source itself names its integer classes.
    digest: sha256 of what was read, or of the id and revision for a Hub data set.
    """

    source: str
    tables: dict[str, pa.Table]
    digest: str
    revision: str | None = None
    class_names: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Examples:
    """Texts with the names of their classes; `labels` is None where nobody labelled them.

    rows: 0-based row numbers in the source table, so that a finding can point at the user's own file. All three
    are lists or, made from a table, `Values` (`data/values.py`), which hold no Python object a row.
    """

    texts: Sequence[str]
    labels: Sequence[str] | None
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Splits:
    """Train, dev and test examples that share no text, and the class names in the order of their ids.

    asked: rows wanted of each, which makes the same splits again; a split may differ where classes are small.
    task: what a label is (`data/targets.py`); class_names of numbers: one, the name of the output.
    """

    train: Examples
    dev: Examples
    test: Examples
    class_names: list[str]
    decisions: list[Decision]
    asked: dict[str, int]
    task: Literal["single_label", "ordinal", "multi_label", "regression"] = "single_label"

    def parts(self) -> dict[str, Examples]:
        """The three splits by name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}


@dataclass(frozen=True)
class Plan:
    """The numbers a training needs that a recipe may leave open.

    memory_tokens: padded tokens per pass; layers: the top blocks that are adapted; seconds: when training ends
    whatever has been read by then, evaluations on dev rows but for the last included; None without a time budget.
    seconds_later: the same for trainings with other seeds, after the first; None if there are none.
    """

    epochs: float
    learning_rate: float
    memory_tokens: int
    checkpointing: bool
    layers: int | Literal["all"] = "all"
    seconds: float | None = None
    seconds_later: float | None = None


@dataclass(frozen=True)
class Estimate:
    """Seconds of a run's phases from here on, and bytes of memory at the peak."""

    before: float
    train: float
    after: float
    rest: float
    memory: float

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.before + self.train + self.after + self.rest


@dataclass(frozen=True)
class Rehearsal:
    """What is known before the work: the filled-in plan, what trains, the cost, and what the probe may read."""

    plan: Plan
    n_steps: int
    trainable_parameters: int
    total_parameters: int
    estimate: Estimate
    decisions: tuple[Decision, ...]
    probe_rows: int = 0


@dataclass
class History:
    """What happened: points of the curves, the step whose state was kept, useful tokens and the seconds they took.

    seconds: of the steps alone, without the evaluations on dev rows. epochs: those it came to, where the time budget
    ended it; n_steps are then the steps that were made. dev_logits (N, C): the kept state's, of the dev rows.
    """

    dev_logits: np.ndarray
    curve: list[dict[str, float]] = field(default_factory=list)
    dev_curve: list[dict[str, float]] = field(default_factory=list)
    n_steps: int = 0
    best_step: int = 0
    stopped_early: bool = False
    tokens: int = 0
    seconds: float = 0.0
    epochs: float | None = None


@dataclass(frozen=True)
class Score:
    """A metric with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """How a model did on N labelled rows of C classes.

    y_true (N,) int class ids; proba (N, C) float64, rows sum to 1; answers (N,) class ids. Of several labels a row
    y_true (N, C) of 0 and 1; proba (N, C) of each label; answers (N, C) bool. Of numbers y_true and answers (N,)
    float; proba (N, 1) the answers. scores: metric name -> Score; confusion: as `count_answers` counts. embeddings:
    (N, D), where they were picked up on the way.
    """

    y_true: np.ndarray
    proba: np.ndarray
    answers: np.ndarray
    scores: dict[str, Score]
    confusion: list[list[int]]
    seconds: float
    tokens_per_second: float
    embeddings: np.ndarray | None = None


@dataclass(frozen=True)
class Scale:
    """What numbers have to do with the network's output, which is their distance from `mean` in `deviation`s."""

    mean: float = 0.0
    deviation: float = 1.0


UNSCALED = Scale()


@dataclass(frozen=True)
class Word:
    """A word of a text, [start, end) of its characters; weight: how much it spoke for a label, None if not read."""

    start: int
    end: int
    weight: float | None


@dataclass(frozen=True)
class Attribution:
    """How much each word of a text spoke for a label, in log-odds or, of numbers, in their own unit.

    log_odds of the label, or the number, for the text; blank: for the text without its words. The weights sum to the
    difference of the two but for `gap`, which more steps make smaller. deviation: of numbers, that of the training
    rows; 0 of labels.
    """

    text: str
    label: str
    words: list[Word]
    log_odds: float
    blank: float
    gap: float
    n_steps: int
    deviation: float = 0.0

    @property
    def gap_share(self) -> float:
        """The gap as a share of all weights, whatever their sign."""
        total = sum(abs(word.weight) for word in self.words if word.weight is not None)
        return abs(self.gap) / total if total else 0.0


@dataclass(frozen=True)
class Proof:
    """How far the logits of the reloaded adapter are from the trained model's, on how many texts."""

    rows: int
    max_logit_difference: float
    tolerance: float
    passed: bool


@dataclass(frozen=True)
class Result:
    """What a run returns: its folder (None after a dry run) and results.json as a dictionary."""

    folder: str | None
    results: dict[str, Any]
