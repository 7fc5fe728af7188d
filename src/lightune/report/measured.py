"""The sections of a report on what was measured: verdict, scores, curves, confusions, calibration, slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lightune.artifact.finished import FinishedRun
from lightune.evidence.metrics import METRICS, Metric
from lightune.evidence.score import TABLES
from lightune.evidence.verdict import UNTUNED
from lightune.report.charts import MOST_DOTS, Line, curves, intervals, reliability, scatter
from lightune.report.panels import row_shares
from lightune.report.parts import (
    NOTHING,
    Block,
    Cell,
    Figure,
    Pair,
    Row,
    Table,
    Text,
    decimal,
    facts,
    number,
    p_value,
    percent,
    scored,
    short,
    signed,
    table,
)
from lightune.report.pictures import TITLES, dev_measure, moving_mean
from lightune.report.screen import headline_in, intervals_in_words, seeds_in_words, units_in

MOST_MATRIX_CLASSES, MOST_BESIDE = 12, 4  # of a matrix, and of two side by side
MOST_CONFUSED = 20
TUNED = "the tuned classifier"
CALIBRATION = {"ece": "calibration error (ECE)", "brier": "Brier score", "log_loss": "log loss"}


def verdict(run: FinishedRun) -> list[Block]:
    """The one sentence, whether what was required holds, and what was trained on what."""
    results = run.results
    blocks: list[Block] = [Text(f"The tuned classifier is {results['verdict']}.", "verdict")]
    if required := results.get("requirements"):
        columns = ["required", "holds", "why not"]
        rows = [[each["what"], "yes" if each["passed"] else "no", each["why"] or NOTHING] for each in required]
        blocks.append(table("What the run had to show", columns, rows))
    else:
        blocks.append(Text("Nothing was required of this run.", "note"))
    return [*blocks, _trained(results)]


def _trained(results: Mapping[str, Any]) -> Table:
    data, proof = results["data"], results["proof"]
    trained = f"{results['trainable_parameters']:,} of {results['total_parameters']:,} parameters"
    rows = f"{results['n_train']:,} for training, {results['n_dev']:,} to choose on, {results['n_test']:,} to test"
    reloaded = f"{proof['rows']} texts in a fresh process; logits differ by {proof['max_logit_difference']:.1e}"
    values = {
        "base model": f"{results['model']['name']}, {results['model']['architecture']}",
        "method": f"{results['recipe']['method']['name']}, {trained} trained",
        "data": f"{data['source']}, text {data['text']!r}, label {data['label']!r}",
        "test data": data["test"] or "held out of the same data; shares no text with the training rows",
        "rows": rows,
        "classes": _classes(results),
        "reloads": f"{'yes' if proof['passed'] else 'no'}: {reloaded} (at most {proof['tolerance']:.1e} may be)",
        "made by": f"lightune {results['lightune']}",
    }
    return facts("What was trained on what", values, ("what", "value"))


def _classes(results: Mapping[str, Any]) -> str:
    if results.get("task") == "regression":
        return "none: the labels are numbers"
    ordered = ", in this order" if results.get("task") == "ordinal" else ""
    return f"{len(results['labels'])}{ordered}: {_some(results['labels'])}"


def _some(labels: Sequence[str], most: int = 12) -> str:
    return ", ".join(map(short, labels[:most])) + (", …" if len(labels) > most else "")


def scores(run: FinishedRun) -> list[Block]:
    """Every classifier that answered the test rows, its headline metrics, and what the comparisons came to."""
    results, rivals = run.results, classifiers(run)
    first, metrics = headline_in(results), TABLES[results.get("task", "single_label")]
    names = [name for name in first if any(name in found for _, _, found in rivals)]
    units = units_in(results)
    rows = [
        [Cell(title), *(scored(found.get(name), in_units=name in units) for name in names)]
        for title, _, found in rivals
    ]
    is_drawn = "lower" if units else "higher"  # of numbers the errors, whose size says something
    drawn = [
        intervals(
            f"score-{name}",
            heading(name, metrics).text,
            [(title, look, found[name]) for title, look, found in rivals if name in found],
            in_units=name in units,
        )
        for name in names
        if metrics[name].direction == is_drawn
    ]
    caption = f"Scores on {results['n_test']:,} test rows, with 95 % intervals"
    figure = Figure(f"{caption}; {is_drawn} is better", drawn)
    heads = [Cell("classifier"), *(heading(name, metrics) for name in names)]
    missing = [
        Text(f"No {name}: {why}.", "note") for name, why in results.get("not_applicable", {}).items() if name in first
    ]
    spread = [Text(f"Over several seeds, {seeds_in_words(results)}.")] if results.get("seeds") else []
    return [figure, table(caption, heads, rows), *missing, *spread, _comparisons(results)]


def heading(metric: str, metrics: Mapping[str, Metric] = METRICS) -> Cell:
    """The name of a metric over its column, and which way is better."""
    return Cell(TITLES.get(metric, metric.replace("_", " ")), f"{metrics[metric].direction} is better")


def classifiers(run: FinishedRun) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(title, class of its colour, metric -> score) of the untuned head, the baselines and the tuned classifier."""
    results = run.results
    baselines = [(each["title"], "baseline", each["scores"]) for each in results["baselines"].values()]
    return [(UNTUNED, "before", results["before"]), *baselines, (TUNED, "after", results["after"])]


def _comparisons(results: Mapping[str, Any]) -> Table:
    """What the tuned classifier is, against each of the others."""
    titles = {"before": UNTUNED} | {name: each["title"] for name, each in results["baselines"].items()}
    rows: list[Row] = [
        [
            titles.get(name, name),
            each["words"],
            each["fixed"],
            each["broken"],
            number(p_value(each["p_adjusted"])),
            number(NOTHING) if name == "before" else results["baselines"][name]["n_train"],
        ]
        for name, each in results["comparisons"].items()
    ]
    columns = ["against", "the tuned classifier is", "it alone right", "the other alone right", "p, adjusted"]
    caption = "Paired comparisons of accuracy: McNemar's exact test, adjusted by Holm's method"
    if results.get("task") == "multi_label":
        columns[2:4] = ["rows with fewer wrong labels", "rows with more"]
        caption = "Paired comparisons of F1 micro: a permutation test, adjusted by Holm's method"
    elif results.get("task") == "regression":
        columns[2:4] = ["rows it is nearer on", "rows the other is nearer on"]
        caption = "Paired comparisons of the mean absolute error: a permutation test, adjusted by Holm's method"
    return table(caption, [*columns, "training rows"], rows)


def learning(run: FinishedRun) -> list[Block]:
    """Training loss, and how good the answers to dev rows were, over the steps."""
    results = run.results
    curve, dev = results.get("curve", []), results.get("dev_curve", [])
    if not curve:
        return [Text("No training step was taken.")]
    drawn = [_loss_curve(curve)]
    if dev:
        drawn.append(_dev_curve(dev, results["best_step"]))
    about = f"Learning over {results['n_steps']:,} steps. Faint: the loss of each step; over it a moving mean"
    ended = "Training was stopped early: the dev rows showed no more gain." if results["stopped_early"] else ""
    note = f"The state of step {results['best_step']:,} was kept. {ended}".strip()
    return [Figure(about, drawn), Text(note, "note"), *_dev_table(results)]


def _loss_curve(curve: Sequence[Mapping[str, Any]]) -> str:
    steps = [point["step"] for point in curve]
    losses = [point["train_loss"] for point in curve]
    smooth = moving_mean(np.array([np.nan if loss is None else loss for loss in losses], dtype=float)).tolist()
    told = f"From {decimal(losses[0], 3)} at step {steps[0]:,} to {decimal(losses[-1], 3)} at step {steps[-1]:,}."
    lines = [Line([*zip(steps, losses, strict=True)], "faint"), Line([*zip(steps, smooth, strict=True)], "loss")]
    return curves("loss", "training loss", told, lines)


def _dev_curve(dev: Sequence[Mapping[str, Any]], best_step: int) -> str:
    name = dev_measure(dev)
    points = [(point["step"], point[name]) for point in dev]
    write = signed if name == "mae" else partial(decimal, digits=3)
    told = "; ".join(f"step {step:,}: {write(value)}" for step, value in points)
    title = f"dev {TITLES[name]}"
    return curves("dev", title, f"{told}.", [Line(points, "dev", has_dots=True)], mark=(best_step, "kept"))


def _dev_table(results: Mapping[str, Any]) -> list[Table]:
    name = dev_measure(results["dev_curve"])
    write = signed if name == "mae" else decimal
    rows = [
        [number(f"{each['step']:,}"), number(write(each[name])), number(decimal(each["loss"]))]
        for each in results["dev_curve"]
    ]
    caption = f"Evaluations on {results['n_dev']:,} dev rows"
    loss = "mean squared error, in variances" if name == "mae" else "log loss"
    return [table(caption, ["step", TITLES[name], loss], rows)] if rows else []


def confusion(run: FinishedRun) -> list[Block]:
    """The matrices before and after; of many classes the pairs that are confused most; of several labels, each.

    Of numbers, answers by labels.
    """
    labels = run.results["labels"]
    if run.predictions.are_numbers:
        return _answers_by_labels(run)
    if run.results.get("by_label"):
        return [_by_label(run.results["by_label"])]
    both = {when: np.array(counts) for when, counts in run.results["confusion"].items()}
    if len(labels) > MOST_MATRIX_CLASSES:
        return [_confused(labels, both)]
    note = "Rows are the true class, columns the answer. The ground is as strong as the cell's share of its row."
    matrices = [_matrix(when, labels, counts) for when, counts in both.items()]
    shown: list[Block] = [Pair(matrices)] if len(labels) <= MOST_BESIDE else [*matrices]
    return [*shown, Text(note, "note")]


def _answers_by_labels(run: FinishedRun) -> list[Block]:
    found = run.predictions
    drawn = []
    for when in ("before", "after"):
        points = list(zip(found.label.tolist(), found.answers(when).tolist(), strict=True))
        score = run.results[when]
        about = f"Mean absolute error {signed(score['mae']['value'])}"
        about += f", R² {decimal(score['r2']['value'], 3)}." if "r2" in score else "."
        drawn.append(scatter(f"answers-{when}", f"{when}: answers", about, points, when))
    shown = f", of which {MOST_DOTS} at most are drawn" if len(found.label) > MOST_DOTS else ""
    caption = f"Answers by labels of {len(found.label):,} test rows{shown}; on the line an answer is the label"
    return [Figure(caption, drawn)]


def _by_label(labels: Sequence[Mapping[str, Any]]) -> Table:
    """How each of several labels a row is given, the most frequent first."""
    rows: list[Row] = [
        [
            short(each["label"]),
            each["n"],
            number(decimal(each["f1_before"], 3)),
            number(decimal(each["f1"], 3)),
            number(decimal(each["precision"], 3)),
            number(decimal(each["recall"], 3)),
            number(decimal(each["threshold"], 3)),
        ]
        for each in sorted(labels, key=lambda each: -each["n"])
    ]
    columns = ["label", "rows that have it", "F1 before", "F1 after", "precision", "recall", "given from"]
    return table("Each label by itself; it is given from a probability on that the dev rows chose", columns, rows)


def _matrix(when: str, labels: Sequence[str], counts: np.ndarray) -> Table:
    rows = [
        [
            Cell(short(label)),
            *(Cell(f"{count:,}", share=share, is_number=True) for count, share in zip(*row, strict=True)),
        ]
        for label, row in zip(labels, zip(counts.tolist(), row_shares(counts).tolist(), strict=True), strict=True)
    ]
    caption = f"{when.capitalize()}: {np.trace(counts):,} of {counts.sum():,} right"
    return table(caption, ["true class", *map(short, labels)], rows, look="matrix")


def _confused(labels: Sequence[str], both: Mapping[str, np.ndarray]) -> Table:
    """The pairs (true class, another answer) with the most rows after tuning, and how many before."""
    after = both["after"].copy()
    np.fill_diagonal(after, 0)
    order = np.argsort(-after, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [divmod(int(place), len(labels)) for place in order if after.flat[place] > 0]
    rows: list[Row] = [
        [short(labels[true]), short(labels[answer]), int(both["before"][true, answer]), int(after[true, answer])]
        for true, answer in pairs
    ]
    caption = f"The most confused pairs of {len(labels)} classes, in rows"
    return table(caption, ["true class", "answer", "before", "after"], rows)


def calibration(run: FinishedRun) -> list[Block]:
    """Whether the probabilities can be believed: before and after temperature scaling, and what they are used for.

    Of numbers, whether the intervals around them can.
    """
    if around := run.results.get("intervals"):
        return [Text(f"{intervals_in_words(around)[:1].upper()}{intervals_in_words(around)[1:]}.")]
    found = run.results.get("calibration")
    if not found:
        return []
    chosen = f"Temperature {decimal(found['temperature'], 3)}, chosen on {found['n_dev']:,} dev rows."
    drawn = [
        reliability(f"reliability-{name}", title, found[bins], look)
        for name, title, bins, look in (
            ("plain", "as they come", "bins_uncalibrated", "before"),
            ("scaled", "temperature scaled", "bins", "after"),
        )
        if found.get(bins)
    ]
    what = "answers, one for each label of each row" if run.predictions.are_sets else "rows"
    caption = f"Accuracy by confidence; the number in a bar is its {what}; the line is perfect calibration"
    rows: list[Row] = [
        [title, scored(found["uncalibrated"].get(name)), scored(found["calibrated"].get(name))]
        for name, title in CALIBRATION.items()
    ]
    scaled = table("Calibration, lower is better", ["measure", "as they come", "temperature scaled"], rows)
    return [Text(chosen), Figure(caption, drawn), scaled, *_goal(found.get("goal")), *_conformal(found)]


def _goal(goal: Mapping[str, Any] | None) -> list[Block]:
    """From which probability on each class is answered, and what the answers then are."""
    if not goal:
        return []
    rows: list[Row] = [
        [short(label), number(decimal(threshold)), scored(goal["reached"].get(label))]
        for label, threshold in goal["thresholds"].items()
    ]
    answered = f"{percent(goal['answered']['value'])} (95 % interval {_shares(goal['answered'])})"
    caption = f"Thresholds for {goal['what']}; a class without one is never answered"
    together = goal["reached"].get("all") if "all" not in goal["thresholds"] else None
    of_all = together and f" Of these {percent(together['value'])} are right (95 % interval {_shares(together)})."
    return [
        table(caption, ["class", "answered from", "reached on the test rows"], rows),
        Text(f"Answered are {answered} of the test rows.{of_all or ''}"),
    ]


def _conformal(found: Mapping[str, Any]) -> list[Block]:
    sets = found.get("conformal")
    if not sets:
        return []
    covered = f"{percent(sets['covered']['value'])} (95 % interval {_shares(sets['covered'])})"
    size = decimal(sets["mean_size"], 2)
    aim = f"Sets of classes that are to hold the true one in {percent(sets['level'], 0)} of the cases"
    return [
        Text(
            f"{aim} hold it in {covered}. Their mean size is {size}, at a threshold of {decimal(sets['threshold'])}."
        )
    ]


def _shares(score: Mapping[str, Any]) -> str:
    return f"{decimal(100 * score['low'], 1)} to {decimal(100 * score['high'], 1)} %"


def _every_label(run: FinishedRun) -> str:
    return ": every label of a row right" if run.results.get("task") == "multi_label" else ""


def slices(run: FinishedRun) -> list[Block]:
    """Where it is better or worse than elsewhere: by length, class and the columns that were named."""
    found = run.results.get("slices")
    if not found:
        return []
    is_off = run.predictions.are_numbers
    rows: list[Row] = [
        [
            each["kind"],
            short(each["value"]),
            each["n"],
            scored(each["score"], in_units=is_off),
            number(signed(each["others"]) if is_off else decimal(each["others"])),
            number(p_value(each["p_adjusted"])),
            each["outcome"],
        ]
        for each in found
    ]
    what = "mean absolute error" if is_off else "accuracy"
    columns = ["by", "value", "rows", what, "of the others", "p, adjusted", "than the others"]
    worst = run.results.get("worst_slice")
    return [
        *([Text(f"Worst: {worst}.")] if worst else []),
        table(f"{what.capitalize()} in parts of the test rows{_every_label(run)}", columns, rows),
    ]
