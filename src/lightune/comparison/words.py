"""What a comparison comes to, in sentences: who is best, who cannot be told from it, what more rows would bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightune.evidence.score import is_lower_better, spoken
from lightune.evidence.verdict import gain_in_words
from lightune.legible import figures, with_interval

Row = Mapping[str, Any]


def verdicts(results: Mapping[str, Any]) -> list[str]:
    """The sentences, without their full stops; the first is the one to remember."""
    measure = results["measure"]
    rows = [row for row in results["rows"] if not row["failed"]]
    most = max(row["size"] for row in rows if not row["is_baseline"])
    of_most = [row for row in rows if row["size"] == most]
    tuned = [row for row in of_most if not row["is_baseline"]]
    is_timed = not results["time_budget"]  # else each takes what it is given
    told = _best(tuned, results["pairs"], measure, is_timed=is_timed) if len(tuned) > 1 else []
    against, is_beaten = _against_baselines(tuned, of_most, results["pairs"], measure)
    told = [*against, *told] if is_beaten else [*told, *against]  # what there is to beat comes first where it wins
    told = told or [f"{tuned[0]['name']}: {spoken(measure)} {with_interval(tuned[0]['score'])}"]
    told += [_more(curve, measure) for curve in results["curves"] if not curve["is_baseline"]]
    return told


def _best(tuned: Sequence[Row], pairs: Sequence[Row], measure: str, *, is_timed: bool) -> list[str]:
    best = _sorted(tuned, measure)[0]
    equal = [row for row in tuned if row is not best and _outcome(best, row, pairs) == "not distinguishable"]
    worse = [row for row in tuned if row is not best and row not in equal]
    is_tied = any(row["score"]["value"] == best["score"]["value"] for row in tuned if row is not best)
    place = "is among the best" if is_tied else "is ahead"
    told = f"{best['name']} {place} with {spoken(measure)} {with_interval(best['score'])}"
    if equal:
        told += f"; not distinguishable from it: {_names(equal)}"
    if worse:
        told += f"; worse: {_names(worse)}"
    return [told, _cheapest([best, *equal], is_timed=is_timed)] if equal else [told]


def _cheapest(rows: Sequence[Row], *, is_timed: bool) -> str:
    """Which of those that cannot be told apart costs least."""
    fewest = min(rows, key=lambda row: (row["trainable_parameters"], row["name"]))
    fastest = min(rows, key=lambda row: (row["seconds"], row["name"]))
    told = f"of these {fewest['name']} trains the fewest parameters, {fewest['trainable_parameters']:,}"
    if not is_timed:
        return told
    told += ", and"
    return f"{told} takes the least time" if fastest is fewest else f"{told} {fastest['name']} takes the least time"


def _against_baselines(
    tuned: Sequence[Row], of_most: Sequence[Row], pairs: Sequence[Row], measure: str
) -> tuple[list[str], bool]:
    """How the best stands against the strongest of what costs next to nothing, and whether that is ahead."""
    baselines = [row for row in of_most if row["is_baseline"]]
    if not baselines:
        return [], False
    best, strongest = _sorted(tuned, measure)[0], _sorted(baselines, measure)[0]
    pair = _pair(best, strongest, pairs)
    if pair is None:
        return [], False
    outcome, gain = _outcome(best, strongest, pairs), _gain(best, pair)
    than = "from" if outcome == "not distinguishable" else "than"
    told = gain_in_words(measure, gain)
    told = f"{best['name']} is {outcome} {than} {strongest['title']}, {with_interval(strongest['score'])}: {told}"
    return [told], gain["value"] <= 0


def _more(curve: Mapping[str, Any], measure: str) -> str:
    twice = curve["more"][0]
    gain, score = twice["gain"], twice["score"]
    by = gain_in_words(measure, gain, "")
    named = f"{curve['title']}: twice as many training rows, {twice['size']:,}"
    now = figures(curve["now"]["value"])
    return f"{named}, would bring {spoken(measure)} from about {now} to about {with_interval(score)}: {by}"


def _sorted(rows: Sequence[Row], measure: str) -> list[Row]:
    """The best first."""
    sign = 1 if is_lower_better(measure) else -1
    return sorted(rows, key=lambda row: (sign * row["score"]["value"], row["name"]))


def _pair(one: Row, other: Row, pairs: Sequence[Row]) -> Row | None:
    return next((p for p in pairs if {p["one"], p["other"]} == {one["name"], other["name"]}), None)


def _outcome(one: Row, other: Row, pairs: Sequence[Row]) -> str:
    """Of the first one against the other."""
    pair = _pair(one, other, pairs)
    if pair is None or pair["outcome"] == "not distinguishable":
        return "not distinguishable"
    if pair["one"] == one["name"]:
        return str(pair["outcome"])
    return "worse" if pair["outcome"] == "better" else "better"


def _gain(one: Row, pair: Row) -> dict[str, float]:
    """The gain of the first one over the other of a pair."""
    gain = pair["gain"]
    if pair["one"] == one["name"]:
        return dict(gain)
    return {"value": -gain["value"], "low": -gain["high"], "high": -gain["low"]}


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(row["name"] for row in rows)
