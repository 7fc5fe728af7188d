"""Make search.html, one file that opens without a network, from search.json alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from lightune.comparison.outcome import front
from lightune.evidence.score import headline_of, is_lower_better
from lightune.evidence.verdict import OF, amount
from lightune.journal import duration
from lightune.legible import figures, typed
from lightune.records import Score
from lightune.report.card import base_name, without_folders
from lightune.report.charts import Dots, bars, parallel, plot
from lightune.report.page import render
from lightune.report.parts import NOTHING, Block, Cell, Code, Figure, Section, Text, facts, number, p_value, table
from lightune.search.folder import BEST, WINNER, run_name
from lightune.search.outcome import gain_told

Results = Mapping[str, Any]
STATES = {"complete": "to its end", "stopped": "stopped", "failed": "failed"}


def search_page(results: Results) -> str:
    """The page of a search that is over."""
    sections = [
        Section("verdict", "Verdict", _verdict(results)),
        Section("found", "What was found", _found(results)),
        Section("finals", "The finalists, with fresh seeds", _finals(results)),
        Section("history", "The trials", _history(results)),
        Section("values", "What the values did", _values(results)),
        Section("time", "Time against quality", _time(results)),
        Section("all", "Every trial", _every(results)),
    ]
    model, data = base_name(results["model"]), base_name(results["data"])
    subtitle = f"A search over {len(results['trials'])} recipes: {results['method']}, {results['n_train']:,} texts"
    return render(f"{model} on {data}", subtitle, [section for section in sections if section.blocks])


def _verdict(results: Results) -> list[Block]:
    told = results["verdict"]
    blocks: list[Block] = [Text(f"{told[0].upper()}{told[1:]}.", "verdict")]
    spread = math.sqrt(results["between_seeds"]["variance"])
    measure = results["measure"]
    if results["runs"]:
        blocks.append(Text(f"The verdict on the winner alone: {results['runs'][WINNER]['verdict']}.", "note"))
    if results["gain"]:
        seeds = f"{amount(measure, spread)}{OF[measure]}"
        blocks.append(
            Text(
                f"The interval counts the choice of the {results['n_test']:,} test rows and that of a seed: by what "
                f"is known of it and by the finals, it moves a training by about {seeds}. The test rows were read "
                f"once, after everything was decided.",
                "note",
            )
        )
    return blocks


def _found(results: Results) -> list[Block]:
    runs, gain, measure = results["runs"], results["gain"], results["measure"]
    values = results["winner"]["values"]
    told = facts("What the winner sets", {key: _written(value) for key, value in values.items()}, ("key", "value"))
    blocks: list[Block] = [told] if values else [Text("The recipe as it is won: nothing is set.")]
    again = Code(f"lightune run {typed(Path(results['folder']) / BEST)}")
    if not runs:
        return [*blocks, again]
    metrics = [name for name in headline_of(results["task"]) if name in next(iter(runs.values()))["after"]][:4]
    rows = [
        [
            Cell(run_name(results, name)),
            *(_score(run["after"].get(metric)) for metric in metrics),
            number(f"{run['trainable_parameters']:,}"),
            number(duration(run["training_seconds"])),
        ]
        for name, run in runs.items()
    ]
    columns: list[Cell | str] = ["run on all rows", *(metric.replace("_", " ") for metric in metrics)]
    columns += ["trained", "training"]
    blocks.append(table(f"On {results['n_test']:,} test rows, with 95 % intervals", columns, rows))
    if gain:
        row = [
            gain_told(measure, Score(**gain)),
            results["fixed"],
            results["broken"],
            number(p_value(results["p_value"])),
        ]
        columns = ["gain", "rows better", "rows worse", "p, one seed each"]
        blocks.append(table("The winner against the recipe as it is, on the same test rows", columns, [row]))
    return [*blocks, again]


def _score(score: Mapping[str, Any] | None) -> Cell:
    if score is None:
        return number(NOTHING)
    return Cell(figures(score["value"]), f"{figures(score['low'])} to {figures(score['high'])}", is_number=True)


def _finals(results: Results) -> list[Block]:
    found = sorted(results["finalists"], key=lambda each: math.inf if each["mean"] is None else each["mean"])
    n_seeds = len(found[0]["losses"])
    rows = [
        [
            Cell(each["name"], "the winner" if each["wins"] else ""),
            *(number(NOTHING if loss is None else figures(loss)) for loss in (each["mean"], *each["losses"])),
        ]
        for each in found
    ]
    columns = ["finalist", "mean", *(f"fresh seed {i + 1}" for i in range(n_seeds))]
    caption = f"Loss on {results['n_dev']:,} dev rows after training on {results['final_rows']:,} rows"
    luck = results["expected_luck"]
    known = f", by about {figures(luck)} here" if luck else ""
    why = (
        f"The best of many trials is partly lucky: had all been equal, the best would still have looked better than "
        f"it is{known}. Seeds that no trial had leave that out; luck of the dev rows, the same for all, is for "
        f"the test rows to tell."
    )
    return [Text(why), table(caption, columns, rows)]


def _history(results: Results) -> list[Block]:
    complete = _complete(results)
    if not complete:
        return []
    points = [(trial["number"] + 1, trial["loss"]) for trial in complete]
    best = list(accumulate((loss for _, loss in points), min))
    stairs = [(number, loss) for (number, _), loss in zip(points, best, strict=True)]
    stairs.append((results["trials"][-1]["number"] + 1, best[-1]))
    series = [Dots(stairs, "dev", joined=True, stairs=True), Dots(points, "after")]
    told = f"The lowest loss, {figures(best[-1])}, is that of trial {_best(complete)['number'] + 1}."
    drawn = [plot("history", "dev loss by trial", told, series, "trial", whole=True)]
    spent = list(accumulate(trial["seconds"] for trial in results["trials"]))
    by_time = [(at, t["loss"]) for at, t in zip(spent, results["trials"], strict=True) if t["loss"] is not None]
    lowest = [*((at, loss) for (at, _), loss in zip(by_time, best, strict=True)), (spent[-1], best[-1])]
    series = [Dots(lowest, "dev", joined=True, stairs=True), Dots(by_time, "after")]
    drawn.append(plot("by-time", "best dev loss by time", told, series, "seconds of training"))
    states = {state: sum(t["state"] == state for t in results["trials"]) for state in STATES}
    counts = ", ".join(f"{n} {STATES[state]}" for state, n in states.items() if n)
    caption = f"Trials on {results['trial_rows']:,} rows: {counts}. The line is the best so far"
    return [Figure(caption, drawn)]


def _values(results: Results) -> list[Block]:
    complete = _complete(results)
    if len(complete) < 2:
        return []
    keys = list(results["space"])
    ranked = sorted(complete, key=lambda trial: -trial["loss"])
    losses = [trial["loss"] for trial in ranked]
    axes = [
        *(_axis(results, key, complete) for key in keys),
        ("dev loss", figures(max(losses)), figures(min(losses))),
    ]
    low, high = min(losses), max(losses)
    lines = [
        (
            [
                *(_place(results, key, trial, complete) for key in keys),
                (high - trial["loss"]) / ((high - low) or 1.0),
            ],
            "after" if trial is ranked[-1] else "dev" if place >= len(ranked) * 3 // 4 else "faint",
        )
        for place, trial in enumerate(ranked)
    ]
    told = f"Every line is a trial; the best one is trial {ranked[-1]['number'] + 1}."
    drawn = [parallel("parallel", "values and what came of them", told, axes, lines)]
    if any(t["values"].get("train.learning_rate", "auto") != "auto" for t in complete):
        rates = [(t["values"]["train.learning_rate"], t["loss"]) for t in complete]
        points = [(rate, loss) for rate, loss in rates if rate != "auto"]
        drawn.append(
            plot("rate", "dev loss by learning rate", told, [Dots(points, "after")], "learning rate", log=True)
        )
    if results["importances"]:
        drawn.append(bars("importance", "which keys made the difference", list(results["importances"].items())))
    caption = "Values of the trials that came to their end; of so few trials a hint, no measurement"
    return [Figure(caption, drawn)]


def _axis(results: Results, key: str, complete: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    values = _options(results, key, complete)
    return key.rpartition(".")[2].replace("_", " "), _written(values[0]), _written(values[-1])


def _place(results: Results, key: str, trial: Mapping[str, Any], complete: Sequence[Mapping[str, Any]]) -> float:
    """Where the value of a trial is on its axis, from 0 to 1."""
    values, own = _options(results, key, complete), trial["values"][key]
    if results["space"][key]["values"] is not None:
        return values.index(own) / max(1, len(values) - 1)
    at = math.log if results["space"][key]["log"] else float
    low, high = at(values[0]), at(values[-1])
    return (at(own) - low) / ((high - low) or 1.0)


def _options(results: Results, key: str, complete: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What there was to choose from, or the values tried in their order."""
    given = results["space"][key]["values"]
    return list(given) if given is not None else sorted(trial["values"][key] for trial in complete)


def _time(results: Results) -> list[Block]:
    name = results["measure"]
    found = [(t["seconds"], t["scores"][name]) for t in _complete(results) if name in t["scores"]]
    if len(found) < 2:
        return []
    sign = -1 if is_lower_better(name) else 1
    named = {str(place): (seconds, sign * score) for place, (seconds, score) in enumerate(found)}
    best = [found[int(place)] for place in front(named)]
    rest = [point for point in found if point not in best]
    told = "No trial was both faster and better than one on the line: " + "; ".join(
        f"{duration(seconds)} for {figures(score)}" for seconds, score in best
    )
    drawn = plot(
        "front", f"dev {name} by time", told, [Dots(rest, "baseline"), Dots(best, "after", joined=True)], "seconds"
    )
    return [Figure("Trials by the time they took; those on the line are beaten by none in both", [drawn])]


def _every(results: Results) -> list[Block]:
    name, keys = results["measure"], list(results["space"])
    rows = [
        [
            Cell(str(t["number"] + 1), "the recipe as it is" if t["is_as_it_is"] else ""),
            *(Cell(_written(t["values"].get(key))) for key in keys),
            number(figures(t["loss"]) if t["loss"] is not None else NOTHING),
            number(figures(t["scores"][name]) if name in t["scores"] else NOTHING),
            number(duration(t["seconds"])),
            Cell(
                STATES[t["state"]],
                without_folders(t["why"]) or (f"at a loss of {figures(_last(t))}" if t["state"] == "stopped" else ""),
            ),
        ]
        for t in results["trials"]
    ]
    columns = ["trial", *(key.rpartition(".")[2] for key in keys), "dev loss", f"dev {name}", "time", "how it ended"]
    caption = f"Every trial, trained on {results['trial_rows']:,} rows, scored on {results['n_dev']:,} dev rows"
    return [table(caption, columns, rows)]


def _complete(results: Results) -> list[Mapping[str, Any]]:
    return [trial for trial in results["trials"] if trial["loss"] is not None]


def _best(complete: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return min(complete, key=lambda trial: trial["loss"])


def _last(trial: Mapping[str, Any]) -> float:
    """The loss at the last report; JSON has made texts of the parts."""
    reports = {int(part): loss for part, loss in trial["reports"].items()}
    return float(reports[max(reports)]) if reports else math.nan


def _written(value: Any) -> str:
    return "the method's own" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
