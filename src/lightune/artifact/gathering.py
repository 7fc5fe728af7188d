"""What a run measured, gathered into results.json, and the files of a run folder that are written with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lightune import __version__
from lightune.artifact.contract import Contract
from lightune.artifact.finished import of_seed
from lightune.artifact.folder import ENVIRONMENT, PREDICTIONS, RECIPE, RESULTS, write_json
from lightune.artifact.promises import goal_kept, intervals_kept, sets_kept
from lightune.artifact.results import (
    BaselineRecord,
    BinRecord,
    CalibrationRecord,
    ComparisonRecord,
    DataRecord,
    DecisionRecord,
    GridRecord,
    LabelRecord,
    ModelRecord,
    ProofRecord,
    RequirementRecord,
    Results,
    ScoreRecord,
    SeedsRecord,
    SliceRecord,
    SpeedRecord,
)
from lightune.data.prepare import Prepared
from lightune.data.targets import as_labels
from lightune.doctor.findings import Finding
from lightune.evidence.baselines import Answer, title_of
from lightune.evidence.calibration import Calibration, reliability, tempered
from lightune.evidence.decisions import right_rows, task_of
from lightune.evidence.gate import Given, Requirement, shortfall
from lightune.evidence.score import TABLES, not_applicable, score_all
from lightune.evidence.set_metrics import as_pairs
from lightune.evidence.slices import slices, worst
from lightune.evidence.verdict import UNTUNED, Comparison, compare, in_words, verdict
from lightune.hardware import Hardware, environment, git_commit, peak_memory_bytes
from lightune.journal import Journal
from lightune.model.backbones import FROM_HUB, Base
from lightune.model.methods import check_options
from lightune.recipe import Checked, Recipe, Task, flatten, write_recipe
from lightune.records import Evaluation, History, Proof, Rehearsal, Score, Splits

GRID = 24  # parts of the labels and of the answers, where both are numbers
CALIBRATED = ("ece", "brier", "log_loss")  # the scores that a temperature changes


@dataclass(frozen=True)
class Evidence:
    """What was measured on the test rows, and what has to be shown by it."""

    before: Evaluation
    after: Evaluation
    answers: Mapping[str, Answer]
    requirements: Sequence[Requirement]
    calibration: Calibration
    kinds: Mapping[str, Sequence[str]]  # name of a kind of slices -> the value of each test row
    by_seed: Mapping[int, Evaluation]  # the first is that of the classifier that is kept
    label_errors: Sequence[Finding] = ()  # that the doctor found among the training rows


def gather(
    checked: Checked,
    journal: Journal,
    hardware: Hardware,
    data: Prepared,
    splits: Splits,
    base: Base,
    contract: Contract,
    plan: Rehearsal,
    history: History,
    evidence: Evidence,
    proof: Proof,
) -> dict[str, Any]:
    """Everything a run measured, checked against the schema, as the dictionary of results.json."""
    before, after, answers, seed = evidence.before, evidence.after, evidence.answers, checked.recipe.seed
    others: dict[str, Given] = {"before": before, **answers}
    answered = {name: other.answers for name, other in others.items()}
    comparisons = compare(after.y_true, after.answers, answered, seed=seed)
    titles = {name: title_of(name, splits.task) if name in answers else UNTUNED for name in others}
    is_numbers = splits.task == "regression"
    rows = np.abs(after.y_true - after.answers) if is_numbers else right_rows(after.y_true, after.answers)
    found = slices(rows, evidence.kinds)
    training_speed = history.tokens / max(history.seconds, 1e-9)
    results = Results(
        lightune=__version__,
        task=splits.task,
        labels=splits.class_names,
        n_train=len(splits.train),
        n_dev=len(splits.dev),
        n_test=len(splits.test),
        before=_records(before.scores),
        after=_records(after.scores),
        baselines={
            name: _baseline(title_of(name, splits.task), answer, checked.recipe, after.y_true, splits.task)
            for name, answer in answers.items()
        },
        comparisons={name: _comparison(titles[name], each, len(splits.test)) for name, each in comparisons.items()},
        verdict=verdict(comparisons, titles, len(splits.test)),
        requirements=[
            RequirementRecord(what=str(each), passed=not why, why=why)
            for each in evidence.requirements
            for why in [shortfall(each, after.y_true, after, others, seed=seed)]
        ],
        calibration=None if is_numbers else _calibration(evidence.calibration, after, splits.class_names, seed),
        intervals=intervals_kept(evidence.calibration, after) if is_numbers else None,
        seeds=_seeds(evidence.by_seed) if len(evidence.by_seed) > 1 else None,
        slices=[SliceRecord(**asdict(each), outcome=each.outcome) for each in found],
        worst_slice=worst(found),
        label_errors=next(iter(evidence.label_errors), None),
        not_applicable=_without_a_number(checked.recipe.metrics, {"before": before, "after": after})
        | not_applicable(after.y_true, len(splits.class_names), splits.task),
        confusion={"before": before.confusion, "after": after.confusion},
        answers={when: _grid(each) for when, each in (("before", before), ("after", after))} if is_numbers else {},
        by_label=_by_label(splits, evidence) if splits.task == "multi_label" else [],
        curve=history.curve,
        dev_curve=history.dev_curve,
        best_step=history.best_step,
        n_steps=history.n_steps,
        stopped_early=history.stopped_early,
        trainable_parameters=plan.trainable_parameters,
        total_parameters=plan.total_parameters,
        seconds=journal.spent(),
        estimated_seconds=round(plan.estimate.seconds, 1),
        tokens_per_second=SpeedRecord(train=round(training_speed, 1), evaluate=round(after.tokens_per_second, 1)),
        peak_memory_bytes=peak_memory_bytes(hardware),
        proof=ProofRecord(**asdict(proof)),
        data=DataRecord(
            source=data.corpus.source,
            test=checked.recipe.data.test,
            digest=data.corpus.digest,
            test_digest=None if data.other is None else data.other.digest,
            revision=data.corpus.revision,
            text=data.text,
            pair=data.pair,
            label=data.label,
        ),
        model=ModelRecord(
            name=base.reference.name,
            revision=base.reference.revision,
            digest=base.digest,
            architecture=type(base.model).__name__,
        ),
        decisions=[DecisionRecord(**asdict(decision)) for decision in journal.decisions],
        recipe=_resolved(checked, plan, history, data, splits, base, contract),
    )
    return results.model_dump()


def write_run(
    folder: Path,
    checked: Checked,
    results: dict[str, Any],
    splits: Splits,
    evidence: Evidence,
    hardware: Hardware,
) -> None:
    """Writes recipe.toml, predictions.parquet, environment.json and, last of all, results.json."""
    given = flatten(checked.recipe.model_dump())
    final = flatten(results["recipe"])
    chosen = {key: value for key, value in final.items() if given.get(key) != value}
    write_recipe(checked, chosen, folder / RECIPE)
    write_predictions(folder / PREDICTIONS, splits, evidence)
    made_from = {"data": results["data"]["digest"], "model": results["model"]["digest"]}
    about = {"seed": checked.recipe.seed, "digests": made_from, "git_commit": git_commit()}
    write_json(folder / ENVIRONMENT, environment(hardware) | about)
    write_json(folder / RESULTS, results)


def write_predictions(path: Path, splits: Splits, evidence: Evidence) -> None:
    """One line per test row, without its text: row (in the source), label, before, after, those of the baselines,
    after_<seed> of other seeds, p_<name> (after) of labels that are no numbers.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    before, after = evidence.before, evidence.after
    named = partial(as_labels, class_names=splits.class_names)
    columns: dict[str, Any] = {
        "row": np.asarray(splits.test.rows, dtype=np.int64),
        "label": named(after.y_true),
        "before": named(before.answers),
        "after": named(after.answers),
        **{name: named(answer.answers) for name, answer in evidence.answers.items()},
        **{of_seed(seed): named(each.answers) for seed, each in list(evidence.by_seed.items())[1:]},
    }
    for i, name in enumerate(splits.class_names if splits.task != "regression" else ()):
        columns[f"p_{name}"] = after.proba[:, i]
    pq.write_table(pa.table(list(columns.values()), names=list(columns)), path)


def _resolved(
    checked: Checked,
    plan: Rehearsal,
    history: History,
    data: Prepared,
    splits: Splits,
    base: Base,
    contract: Contract,
) -> dict[str, Any]:
    """The recipe with every choice that was made filled in, so that it runs again alike."""
    values = checked.recipe.model_dump()
    if base.reference.why == FROM_HUB and base.reference.revision:
        values["model"] = f"{base.reference.name}@{base.reference.revision}"
    sizes = {f"{name}_rows": size for name, size in splits.asked.items()}
    values["data"] |= {"text": data.text, "pair": data.pair, "label": data.label, "task": data.task}
    values["data"] |= {"max_tokens": contract.max_tokens, **sizes}
    values["method"] |= check_options(contract.method, checked.recipe.method.options)
    if data.corpus.revision:
        values["data"]["source"] = f"{data.corpus.source}@{data.corpus.revision}"
    if data.other is not None and data.other.revision:
        values["data"]["test"] = f"{data.other.source}@{data.other.revision}"
    values["time_budget"] = (
        None  # what it came to is written down: on another machine it would come to something else
    )
    values["train"] |= {
        "epochs": plan.plan.epochs if history.epochs is None else history.epochs,
        "layers": plan.plan.layers,
        "learning_rate": plan.plan.learning_rate,
        "memory_tokens": plan.plan.memory_tokens,
        "gradient_checkpointing": plan.plan.checkpointing,
    }
    return values


def _baseline(title: str, answer: Answer, recipe: Recipe, y_true: np.ndarray, task: Task) -> BaselineRecord:
    scores = score_all(y_true, answer.proba, answer.answers, names=list(TABLES[task]), seed=recipe.seed)
    return BaselineRecord(
        title=title,
        scores=_records(scores),
        n_train=answer.n_train,
        chosen=answer.chosen,
        seconds=round(answer.seconds, 3),
    )


def _comparison(title: str, comparison: Comparison, n_rows: int) -> ComparisonRecord:
    numbers = asdict(comparison)
    return ComparisonRecord(
        gain=ScoreRecord(**numbers.pop("gain")),
        **numbers | {"detectable": None if math.isnan(comparison.detectable) else comparison.detectable},
        outcome=comparison.outcome,
        words=in_words(title, comparison, n_rows),
    )


def _calibration(found: Calibration, after: Evaluation, labels: Sequence[str], seed: int) -> CalibrationRecord:
    """What a calibration comes to on the test rows; after.proba is calibrated already."""
    y_true, raw = after.y_true, tempered(after.proba, 1 / found.temperature, task_of(after.y_true))
    shown = as_pairs if y_true.ndim == 2 else lambda y, proba: (y, proba)
    return CalibrationRecord(
        temperature=found.temperature,
        n_dev=found.n_dev,
        uncalibrated=_records(score_all(y_true, raw, names=CALIBRATED, seed=seed)),
        calibrated=_records({name: after.scores[name] for name in CALIBRATED}),
        bins_uncalibrated=[BinRecord(**asdict(each)) for each in reliability(*shown(y_true, raw))],
        bins=[BinRecord(**asdict(each)) for each in reliability(*shown(y_true, after.proba))],
        goal=goal_kept(found, after, labels),
        conformal=sets_kept(found, after),
    )


def _seeds(by_seed: Mapping[int, Evaluation]) -> SeedsRecord:
    evaluations = list(by_seed.values())
    names = [name for name in evaluations[0].scores if all(name in each.scores for each in evaluations)]
    scores = {name: [each.scores[name].value for each in evaluations] for name in names}
    return SeedsRecord(
        seeds=list(by_seed),
        scores=scores,
        mean={name: float(np.mean(values)) for name, values in scores.items()},
        deviation={name: float(np.std(values, ddof=1)) for name, values in scores.items()},
    )


def _by_label(splits: Splits, evidence: Evidence) -> list[LabelRecord]:
    before, after = evidence.before.confusion, evidence.after.confusion
    return [
        LabelRecord(
            label=label,
            n=right + missed,
            threshold=threshold,
            precision=right / (right + wrong) if right + wrong else None,
            recall=right / (right + missed) if right + missed else None,
            f1=_f1(*after[i]),
            f1_before=_f1(*before[i]),
        )
        for i, (label, threshold) in enumerate(zip(splits.class_names, evidence.calibration.given_from, strict=True))
        for right, wrong, missed, _ in [after[i]]
    ]


def _f1(right: int, wrong: int, missed: int, _: int) -> float:
    return 2 * right / (2 * right + wrong + missed) if right + wrong + missed else 0.0


def _grid(found: Evaluation) -> GridRecord:
    """From the smallest label to the largest, with a little air."""
    low, high = float(found.y_true.min()), float(found.y_true.max())
    air = 0.1 * (high - low) or 0.5
    edges = np.linspace(low - air, high + air, GRID + 1)
    answers, labels = (np.clip(each, edges[0], edges[-1]) for each in (found.answers, found.y_true))
    counts, *_ = np.histogram2d(answers, labels, bins=(edges, edges))
    return GridRecord(low=edges[0], high=edges[-1], counts=counts.astype(int).tolist())


def _without_a_number(names: Sequence[str], evaluations: Mapping[str, Evaluation]) -> dict[str, str]:
    missing = {name: [when for when, e in evaluations.items() if name not in e.scores] for name in names}
    return {name: f"no number for the answers {' and '.join(when)}" for name, when in missing.items() if when}


def _records(scores: Mapping[str, Score]) -> dict[str, ScoreRecord]:
    return {name: ScoreRecord(**asdict(score)) for name, score in scores.items()}
