"""Everything a comparison found, as the dictionary of compare.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lightune import __version__
from lightune.artifact.finished import Compared, FinishedRun, as_compared
from lightune.comparison.cells import Asked, Cell, short_name
from lightune.comparison.curve import Curve
from lightune.comparison.outcome import (
    Entrant,
    compare_all,
    front,
    learning_curve,
    mean_score,
    spread_of_seeds,
)
from lightune.comparison.words import verdicts
from lightune.errors import GateError
from lightune.evidence.baselines import BASELINES
from lightune.evidence.score import MEASURES, is_lower_better
from lightune.evidence.seeds import Between
from lightune.recipe import Checked
from lightune.records import Score

FORMAT = 1
MORE_ROWS = (2, 4)  # times as many as the most that were trained on


@dataclass(frozen=True)
class Over:
    """A cell that is over: its run, what was measured beside it; or why there is none."""

    cell: Cell
    run: FinishedRun | None
    measured: Mapping[str, Any]

    @property
    def why_not(self) -> str:
        """What went wrong, nothing if nothing did."""
        return str(self.measured.get("failed", ""))


@dataclass(frozen=True)
class _Found:
    """An entrant with its score and where it comes from."""

    entrant: Entrant
    score: Score
    over: Over


def gather(checked: Checked, asked: Asked, overs: Sequence[Over]) -> dict[str, Any]:
    """The numbers of a comparison. GateError if not one cell could be run, or they answered different rows."""
    finished = [over for over in overs if over.run is not None]
    if not any(not over.cell.is_baselines for over in finished):
        failures = sorted({over.why_not for over in overs if over.why_not})
        raise GateError(f"no run came to its end: {'; '.join(failures)[:500]}")
    first = _run(finished[0]).results
    measure, seed = MEASURES[first["task"]], checked.recipe.seed
    answered = [(over, as_compared(_run(over), first["labels"])) for over in finished]
    y = answered[0][1].y
    if any(
        not np.array_equal(each.rows, answered[0][1].rows) or not np.array_equal(each.y, y) for _, each in answered
    ):
        raise GateError("the runs answered different test rows, as their folders say. Choose another --output.")
    entrants = [entrant for over, each in answered for entrant in _entrants(over, each, asked)]
    between = spread_of_seeds(y, entrants, seed)
    found = {each.name: _found(each, between, overs, measure) for each in entrants}
    pairs = compare_all(y, entrants, between, seed)
    rows = [_row(each, measure) for each in found.values()]
    rows += [_failed(over, asked) for over in overs if over.run is None]
    curves = _curves(y, entrants, between, seed, is_error=is_lower_better(measure))
    results: dict[str, Any] = {
        "format_version": FORMAT,
        "lightune": __version__,
        "name": checked.name,
        "data": checked.recipe.data.source,
        "task": first["task"],
        "measure": measure,
        "seed": seed,
        "asked": {key.partition(".")[2]: value for key, value in asked.settings.items()},
        "has_own_rates": checked.origins.get("train.learning_rate") != "command line",
        "time_budget": checked.recipe.time_budget,
        "n_dev": first["n_dev"],
        "n_test": first["n_test"],
        "rows": rows,
        "pairs": [asdict(pair) | {"outcome": pair.outcome} for pair in pairs],
        "between_seeds": {str(size): asdict(each) for size, each in between.items()},
        "fronts": _fronts(rows, measure, is_timed=not checked.recipe.time_budget),
        "curves": curves,
    }
    return results | {"verdicts": verdicts(results)}


def _run(over: Over) -> FinishedRun:
    assert over.run is not None
    return over.run


def _entrants(over: Over, answers: Compared, asked: Asked) -> list[Entrant]:
    """Who answers in a run: the tuned classifier, or baselines."""
    cell, n_rows = over.cell, int(_run(over).results["n_train"])  # of each class one at least, so more than asked for
    if not cell.is_baselines:
        return [Entrant(cell.name, cell.method, cell.model, n_rows, _title(cell, asked), answers.by_seed)]
    titles = {name: each["title"] for name, each in _run(over).results["baselines"].items()}
    if len(asked.models) > 1:
        own = [name for name in titles if BASELINES[name].needs_embeddings]
        titles |= {name: f"{titles[name]}, {short_name(cell.model)}" for name in own}
    return [
        Entrant(f"{cell.name}: {name}", titles[name], cell.model, n_rows, titles[name], [theirs], baseline=name)
        for name, theirs in answers.others.items()
    ]


def _title(cell: Cell, asked: Asked) -> str:
    """A recipe's name where sizes are told beside it."""
    if len(asked.models) == 1:
        return cell.method
    model = short_name(cell.model)
    return f"{cell.method}, {model}" if len(asked.methods) > 1 else model


def _found(entrant: Entrant, between: Mapping[int, Between], overs: Sequence[Over], measure: str) -> _Found:
    over = next(o for o in overs if o.cell.name == entrant.name.removesuffix(f": {entrant.baseline}"))
    results = _run(over).results
    if entrant.is_baseline:
        return _Found(entrant, Score(**results["baselines"][entrant.baseline]["scores"][measure]), over)
    score = results["after"][measure]
    scores = results["seeds"]["scores"][measure] if results["seeds"] else [score["value"]]
    mean = mean_score(entrant, between.get(entrant.size), scores, (score["low"], score["high"]))
    most = math.inf if is_lower_better(measure) else 1.0
    clipped = Score(mean.value, max(0.0, mean.low), min(most, mean.high))
    return _Found(entrant, clipped, over)


def _row(found: _Found, measure: str) -> dict[str, Any]:
    entrant, over = found.entrant, found.over
    results = _run(over).results
    row = {
        "name": entrant.name,
        "method": entrant.method,
        "model": entrant.model,
        "size": entrant.size,
        "title": entrant.title,
        "is_baseline": entrant.is_baseline,
        "failed": "",
        "score": asdict(found.score),
    }
    if entrant.is_baseline:
        return row | {"seconds": results["baselines"][entrant.baseline]["seconds"]}
    seeds = results["seeds"]
    return row | {
        "by_seed": seeds["scores"][measure] if seeds else [results["after"][measure]["value"]],
        "after": results["after"],
        "trainable_parameters": results["trainable_parameters"],
        "total_parameters": results["total_parameters"],
        "learning_rate": results["recipe"]["train"]["learning_rate"],
        "epochs": results["recipe"]["train"]["epochs"],
        "values": dict(over.measured.get("values", {})),
        "seconds": results["seconds"]["train"],
        "seconds_in_all": results["seconds"]["total"],
        "peak_memory_bytes": results["peak_memory_bytes"],
        "artifact_bytes": over.measured["artifact_bytes"],
        "texts_per_second": over.measured["texts_per_second"],
    }


def _failed(over: Over, asked: Asked) -> dict[str, Any]:
    cell = over.cell
    row = {"name": cell.name, "method": cell.method, "model": cell.model, "size": cell.size}
    row |= {"title": "what there is to beat" if cell.is_baselines else _title(cell, asked)}
    return row | {"is_baseline": cell.is_baselines, "failed": over.why_not, "score": None}


def _fronts(rows: Sequence[Mapping[str, Any]], measure: str, *, is_timed: bool) -> dict[str, list[str]]:
    """The names on the front of each cost, over the rows of the most texts; is_timed: time is one."""
    sign = -1 if is_lower_better(measure) else 1
    tuned = [row for row in rows if not row["is_baseline"] and not row["failed"]]
    most = max(row["size"] for row in tuned)
    costs = ("trainable_parameters", *(("seconds",) if is_timed else ()))
    return {
        cost: front({row["name"]: (row[cost], sign * row["score"]["value"]) for row in tuned if row["size"] == most})
        for cost in costs
    }


def _curves(
    y: Any, entrants: Sequence[Entrant], between: Mapping[int, Between], seed: int, *, is_error: bool
) -> list[dict[str, Any]]:
    """For each recipe what more rows would bring, in what verdicts are told in."""
    found, most = [], max(each.size for each in entrants)
    for title in dict.fromkeys(each.title for each in entrants):
        own = sorted((each for each in entrants if each.title == title), key=lambda each: each.size)
        curve = learning_curve(y, own, between, seed) if own[-1].size == most else None
        if curve is not None:
            told = {"title": title, "is_baseline": own[0].is_baseline, "sizes": [each.size for each in own]}
            found.append(told | _beyond(curve, own[0].size, most, is_error=is_error))
    return found


def _beyond(curve: Curve, least: int, most: int, *, is_error: bool) -> dict[str, Any]:
    """The scores along a curve, at its last size and beyond, and what that brings."""

    def score(n_rows: float) -> dict[str, float]:
        error = curve.at(n_rows)
        return asdict(error if is_error else Score(1 - error.value, 1 - error.high, 1 - error.low))

    places = np.geomspace(least, most * MORE_ROWS[-1], 25)
    return {
        "now": score(most),
        "line": [{"size": float(place)} | score(place) for place in places],
        "more": [
            {"size": times * most, "score": score(times * most), "gain": asdict(curve.gain(most, times * most))}
            for times in MORE_ROWS
        ],
    }
