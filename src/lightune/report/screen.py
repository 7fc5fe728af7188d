"""What a run shows on the terminal: the plan before the work, the table after it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lightune.doctor.findings import SEVERITIES, Diagnosis
from lightune.evidence.score import MEASURES, headline_of
from lightune.evidence.value_metrics import IN_UNITS
from lightune.evidence.verdict import gain_in_words
from lightune.hardware import GIB
from lightune.journal import Journal, duration
from lightune.legible import figures
from lightune.records import Rehearsal, Splits

MOST_LABELS = 8  # of which a line tells something
CHANGED = {  # what tuning did to rows, for better and for worse, by what is compared
    "accuracy": ("rows fixed", "broken"),
    "f1_micro": ("rows with fewer wrong labels", "with more"),
    "mae": ("rows nearer", "further off"),
}


def show_plan(journal: Journal, plan: Rehearsal, splits: Splits) -> None:
    """Rows, steps, parameters, memory, and how long it will take."""
    cost = plan.estimate
    rows = f"{len(splits.train):,} training, {len(splits.dev):,} dev and {len(splits.test):,} test rows"
    what = "numbers to predict" if splits.task == "regression" else f"{len(splits.class_names)} classes"
    journal.say(f"  {rows}, {what}; {plan.n_steps:,} steps of training")
    parts = f"before {duration(cost.before)}, training {duration(cost.train)}, after {duration(cost.after)}"
    journal.say(f"  about {duration(cost.seconds)} from here ({parts}), {cost.memory / GIB:.1f} GiB of memory")
    journal.event("plan", **plan_as_dict(plan, splits))


def plan_as_dict(plan: Rehearsal, splits: Splits) -> dict[str, Any]:
    """The plan as `lightune run --dry-run --json` prints it."""
    return {
        "labels": splits.class_names,
        "n_train": len(splits.train),
        "n_dev": len(splits.dev),
        "n_test": len(splits.test),
        "n_steps": plan.n_steps,
        "epochs": plan.plan.epochs,
        "learning_rate": plan.plan.learning_rate,
        "trainable_parameters": plan.trainable_parameters,
        "total_parameters": plan.total_parameters,
        "estimated_memory_bytes": round(plan.estimate.memory),
        "estimated_seconds": round(plan.estimate.seconds, 1),
    }


def show_scores(
    journal: Journal, columns: dict[str, dict[str, Any]], names: Sequence[str], units: Sequence[str] = ()
) -> None:
    """A table of some metrics: column title -> metric -> value, low, high; units: those of any size."""
    from rich.table import Table

    table = Table("  metric", box=None, padding=(0, 3, 0, 0), header_style="bold")
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
        table.add_column("95 % interval", style="dim", no_wrap=True)
    for name in names:
        if all(name in scores for scores in columns.values()):
            cells = [cell for scores in columns.values() for cell in _cells(scores[name], name in units)]
            table.add_row(f"  {name}", *cells)
    journal.show(table)


def show_results(journal: Journal, results: dict[str, Any], folder: Any) -> None:
    """Before and after side by side, what else there is to beat, the verdict, how long it took, where it is."""
    rows = f"{results['n_test']:,} test rows that share no text with the {results['n_train']:,} for training"
    journal.say(f"\n{rows}\n")
    both = {"before": results["before"], "after": results["after"]}
    show_scores(journal, both, headline_in(results), units_in(results))
    gain, measure = results["comparisons"]["before"], measure_in(results)
    fixed, broken = CHANGED[measure]
    changed = f"{gain['fixed']:,} {fixed}, {gain['broken']:,} {broken}"
    journal.say(f"\n{measure} {gain_in_words(measure, gain['gain'])}: {changed}\n")
    show_baselines(journal, results)
    for line in trust_in_words(results):
        journal.say(line)
    if results["seeds"]:
        journal.say(seeds_in_words(results))
    if results["worst_slice"]:
        journal.say(f"worst slice: {results['worst_slice']}")
    if doubts := results["label_errors"]:
        journal.say(f"training labels: {doubts['what']}; all {doubts['count']:,} row numbers are in doctor.json")
    journal.say(f"verdict: {results['verdict']}")
    for required in results["requirements"]:
        journal.say(f"required {required['what']}: {'yes' if required['passed'] else 'NO, ' + required['why']}")
    seconds = results["seconds"]
    of_it = f"the first of {len(results['seeds']['seeds'])} trainings" if results["seeds"] else "training"
    journal.say(f"{duration(seconds['total'])} in all, {duration(seconds['train'])} of it {of_it}")
    journal.say(f"run folder: {folder}   (read {folder}/report.html)")
    journal.say(f"use it: lightune predict {folder} FILE")


def measure_in(results: Mapping[str, Any]) -> str:
    """What the verdict of a run compares."""
    return MEASURES[results.get("task", "single_label")]


def units_in(results: Mapping[str, Any]) -> tuple[str, ...]:
    """The metrics of a run that are in the unit of its labels, and so of any size."""
    return IN_UNITS if results.get("task") == "regression" else ()


def headline_in(results: Mapping[str, Any]) -> tuple[str, ...]:
    """The metrics of a run that tables and cards show, the most telling first."""
    return headline_of(results.get("task", "single_label"), [sum(row) for row in results["confusion"]["after"]])


def trust_in_words(results: Mapping[str, Any]) -> list[str]:
    """What the answers of a run are worth, by its dev rows and its test rows, a line each."""
    return calibration_in_words(results["calibration"]) if results["calibration"] else promises_in_words(results)


def intervals_in_words(found: Mapping[str, Any], rows: str = "the test rows") -> str:
    """What the interval around a number is, and how often it held the label."""
    if found["half_width"] is None:
        return f"no intervals: {found['n_dev']:,} dev rows are too few for a level of {found['level']:g}"
    covered = found["covered"]
    held = f"{100 * covered['value']:.1f} % ({100 * covered['low']:.1f} to {100 * covered['high']:.1f})"
    width = f"the answer ± {figures(found['half_width'])}" + (
        f", by {found['n_dev']:,} dev rows" if found["n_dev"] else ""
    )
    return f"intervals of level {found['level']:g}: {width}; they hold the label of {held} of {rows}"


def calibration_in_words(calibration: dict[str, Any]) -> list[str]:
    """What dev rows taught about probabilities and what it came to on the test rows, a line each."""
    was, now = (calibration[name]["ece"] for name in ("uncalibrated", "calibrated"))
    fitted = f"temperature {calibration['temperature']:.2f} by {calibration['n_dev']:,} dev rows"
    error = f"{now['value']:.3f} ({now['low']:.3f} to {now['high']:.3f})"
    without = "" if calibration["temperature"] == 1 else f", {was['value']:.3f} without it"
    return [f"calibration: {fitted}; expected error {error}{without}", *promises_in_words(calibration)]


def promises_in_words(found: Mapping[str, Any], rows: str = "the test rows") -> list[str]:
    """What came of a goal, of sets of labels and of intervals on labelled rows, a line each."""
    lines = []
    if goal := found.get("goal"):
        reached = [_reached(label, score) for label, score in goal["reached"].items()]
        more = [] if len(reached) <= MOST_LABELS else [f"{len(reached) - MOST_LABELS} more"]
        share = f"{100 * goal['answered']['value']:.1f} % of {rows} get a label"
        lines.append(f"{goal['what']}: {share}; {'; '.join([*reached[:MOST_LABELS], *more])}")
    if sets := found.get("conformal"):
        covered = f"hold the true label of {100 * sets['covered']['value']:.1f} % of {rows}"
        lines.append(f"label sets of level {sets['level']:g}: {covered}, {sets['mean_size']:.2f} labels on average")
    if around := found.get("intervals"):
        lines.append(intervals_in_words(around, rows))
    return lines


def seeds_in_words(results: Mapping[str, Any]) -> str:
    """How far trainings with other seeds are apart, beside what the choice of test rows leaves open."""
    measure, seeds = measure_in(results), results["seeds"]
    in_units = measure in units_in(results)
    write, first = figures if in_units else "{:.4f}".format, _cells(results["after"][measure], in_units)
    values = ", ".join(write(value) for value in seeds["scores"][measure])
    spread = f"{write(seeds['mean'][measure])} on average, standard deviation {write(seeds['deviation'][measure])}"
    sampling = f"the choice of test rows leaves {first[1]} open for the first"
    return f"{measure} under {len(seeds['seeds'])} seeds: {values}; {spread}; {sampling}"


def _reached(label: str, score: dict[str, float] | None) -> str:
    return (
        f"{label} never"
        if score is None
        else f"{label} {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
    )


def show_baselines(journal: Journal, results: dict[str, Any]) -> None:
    """A table of what learned from the same rows: how good it is, and how far the tuned classifier is from it."""
    from rich.table import Table

    if not results["baselines"]:
        return
    table = Table("  on the same rows", box=None, padding=(0, 3, 0, 0), header_style="bold")
    measure = measure_in(results)
    table.add_column(measure, justify="right", no_wrap=True)
    table.add_column("95 % interval", style="dim", no_wrap=True)
    table.add_column("the tuned one is")
    for name, baseline in results["baselines"].items():
        gain = results["comparisons"][name]
        cells = _cells(baseline["scores"][measure], measure in units_in(results))
        told = f"{gain['outcome']}: {gain_in_words(measure, gain['gain'], '')}"
        table.add_row(f"  {baseline['title']}", *cells, told)
    journal.show(table)
    journal.say()


def show_faults(journal: Journal, diagnosis: Diagnosis, options: Mapping[str, str | None] | None = None) -> None:
    """The errors and warnings among the findings, a line each, and how many notes there are.

    options: with which the data was read beside its columns, for the command that says more.
    """
    told = [finding for finding in diagnosis.findings if finding.severity != "note"]
    for finding in told:
        journal.warn(f"{finding.what}: {finding.do}")
    notes = len(diagnosis.findings) - len(told)
    sample = " (a sample of many rows)" if diagnosis.is_of_sample() else ""
    found = "nothing that would spoil the result" if not told else f"{len(told)} to look at"
    given = {"text": diagnosis.text, "pair": diagnosis.pair, "label": diagnosis.label, **(options or {})}
    words = [word for name, value in given.items() if value not in (None, "auto") for word in (f"--{name}", value)]
    command = shlex.join(["lightune", "check", diagnosis.source, *words])
    journal.say(f"  {found}{sample}; {notes} notes; all of it, with rows: {command}")


def show_diagnosis(journal: Journal, diagnosis: Diagnosis) -> None:
    """The findings, the worst first: what, where, why it matters, what to do."""
    rows = ", ".join(f"{n:,} rows of split {name}" for name, n in diagnosis.rows.items())
    pair = "" if diagnosis.pair is None else f", pair {diagnosis.pair!r}"
    journal.say(f"{diagnosis.source}: {rows}; text {diagnosis.text!r}{pair}, label {diagnosis.label!r}")
    for finding in sorted(diagnosis.findings, key=lambda each: SEVERITIES.index(each.severity)):
        where = "; ".join(f"{name}: {', '.join(map(str, places[:8]))}" for name, places in finding.rows.items())
        journal.say(f"\n{finding.severity.upper()}  {finding.what}  [{finding.check}]")
        if where:
            more = " …" if any(len(places) > 8 for places in finding.rows.values()) else ""
            journal.say(f"  rows, from 0, {where}{more}")
        for split, examples in (finding.examples or {}).items():
            for each in examples:
                journal.say(f"  {split} {each.row} ({each.label}): {each.text}")
        journal.say(f"  {finding.why}: {finding.do}")
    for check, why in diagnosis.left_out.items():
        journal.say(f"\nleft out: {check} ({why})")
    counts = {severity: sum(each.severity == severity for each in diagnosis.findings) for severity in SEVERITIES}
    told = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts.items())
    journal.say(f"\n{told}; {duration(diagnosis.seconds)}")


def _cells(score: dict[str, float], in_units: bool = False) -> list[str]:
    if in_units:
        return [figures(score["value"]), f"{figures(score['low'])} to {figures(score['high'])}"]
    return [f"{score['value']:.4f}", f"{score['low']:.3f} to {score['high']:.3f}"]
