"""Make compare.html, one file that opens without a network, from compare.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightune.comparison.folder import RUNS
from lightune.evidence.score import is_lower_better, spoken
from lightune.evidence.verdict import gain_in_words
from lightune.hardware import GIB
from lightune.journal import duration
from lightune.legible import ends, figures, typed
from lightune.report.card import base_name, without_folders
from lightune.report.charts import Dots, plot
from lightune.report.compare_screen import MIB, in_order
from lightune.report.page import render
from lightune.report.parts import Block, Cell, Code, Figure, Section, Text, number, p_value, table

Results = Mapping[str, Any]
COSTS = {"trainable_parameters": "trained parameters", "seconds": "seconds of training"}
MOST_NAMES = 14  # written beside dots


def compare_page(results: Results) -> str:
    """The page of a comparison that is over."""
    sections = [
        Section("verdict", "Verdict", _verdict(results)),
        Section("all", "Every run", _every(results)),
        Section("fronts", "What it costs", _fronts(results)),
        Section("curve", "More training rows", _curves(results)),
        Section("pairs", "Who is better than whom", _pairs(results)),
        Section("failed", "What could not be run", _failed(results)),
    ]
    asked, tuned = results["asked"], [row for row in results["rows"] if not row["is_baseline"]]
    each = f"{asked['seeds']} trainings of each" if asked["seeds"] > 1 else "one training of each"
    subtitle = f"A comparison of {len(tuned)} recipes, {each}"
    title = ", ".join(dict.fromkeys(base_name(row["model"]) for row in tuned))
    return render(
        f"{title} on {base_name(results['data'])}", subtitle, [section for section in sections if section.blocks]
    )


def _verdict(results: Results) -> list[Block]:
    first, *others = results["verdicts"]
    blocks: list[Block] = [Text(f"{first[0].upper()}{first[1:]}.", "verdict")]
    blocks += [Text(f"{told[0].upper()}{told[1:]}.") for told in others]
    measure, asked = spoken(results["measure"]), results["asked"]
    rates = "each at the learning rate that was given"
    if asked["tune"]:
        rates = f"each after a search of {asked['tune']} trials"
    elif results["has_own_rates"]:
        rates = "each at its method's own learning rate, but for the recipe's own method and model"
    budget = f", in at most {results['time_budget']} each" if results["time_budget"] else ""
    note = (
        f"All answered the same {results['n_test']:,} test rows, {rates}{budget}. Better or worse is said of "
        f"recipes, not of single trainings: intervals of {measure} and tests count the choice of test rows and "
        f"that of a seed, and the tests are Holm's, over all pairs."
    )
    return [*blocks, Text(note, "note")]


def _every(results: Results) -> list[Block]:
    has_values = any(row.get("values") for row in results["rows"])
    columns: list[Cell | str] = ["run", "training rows", spoken(results["measure"]), "trained", "time"]
    columns += ["memory at the peak", "on disk", "texts a second", "learning rate"]
    columns += ["found by its search"] if has_values else []
    rows = []
    for row in in_order(results):
        score = Cell(figures(row["score"]["value"]), ends(row["score"]), is_number=True)
        if row["is_baseline"]:
            cells = [Cell(row["title"]), number(f"{row['size']:,}"), score, number("")]
            cells += [number(duration(row["seconds"])), *(number("") for _ in range(4))]
        else:
            seeds = " ".join(figures(value) for value in row["by_seed"]) if len(row["by_seed"]) > 1 else ""
            cells = [
                Cell(row["name"], f"by seed {seeds}" if seeds else ""),
                number(f"{row['size']:,}"),
                score,
                number(f"{row['trainable_parameters']:,}"),
                number(duration(row["seconds"])),
                number(f"{row['peak_memory_bytes'] / GIB:.2f} GiB"),
                number(f"{row['artifact_bytes'] / MIB:,.1f} MiB"),
                number(f"{row['texts_per_second']:,.0f}"),
                number(f"{row['learning_rate']:g}"),
            ]
        cells += [Cell(_values(row.get("values") or {}))] if has_values else []
        rows.append(cells)
    caption = (
        "The best first for each number of rows. Time is that of one training, memory that of the whole run in a "
        "process of its own; texts a second are read and answered by the saved classifier"
    )
    return [
        table(caption, columns, rows),
        Code(f"lightune predict {typed(Path(results['folder']) / RUNS / 'NAME')} FILE"),
    ]


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in values.items())


def _fronts(results: Results) -> list[Block]:
    tuned = [row for row in results["rows"] if not row["is_baseline"] and not row["failed"]]
    most = max(row["size"] for row in tuned)
    rows = [row for row in tuned if row["size"] == most]
    if len(rows) < 2:
        return []
    name = spoken(results["measure"])
    drawn = []
    for cost, best in results["fronts"].items():
        told = COSTS[cost]
        on, off = ([row for row in rows if (row["name"] in best) is is_on] for is_on in (True, False))
        on.sort(key=lambda row: row[cost])
        about = "No run is both cheaper and better than one on the line: " + "; ".join(
            f"{row['name']}, {row[cost]:,.0f} {told}, {figures(row['score']['value'])}" for row in on
        )
        series = [_dots(off, cost, "baseline", joined=False), _dots(on, cost, "after", joined=True)]
        is_log = min(row[cost] for row in rows) > 0
        drawn.append(plot(f"front-{cost}", f"{name} by {told}", about, series, told, log=is_log))
    caption = (
        f"Runs on {most:,} training rows, with 95 % intervals; none is both cheaper and better than one on the line"
    )
    return [Figure(caption, drawn)]


def _dots(rows: Sequence[Mapping[str, Any]], cost: str, look: str, *, joined: bool) -> Dots:
    points = [(float(row[cost]), row["score"]["value"]) for row in rows]
    names = [row["title"] for row in rows]
    spreads = [(row["score"]["low"], row["score"]["high"]) for row in rows]
    return Dots(points, look, joined=joined, names=names if len(rows) <= MOST_NAMES else (), spreads=spreads)


def _curves(results: Results) -> list[Block]:
    curves = results["curves"]
    if not curves:
        return []
    measure = results["measure"]
    name = spoken(measure)
    rows = []
    for curve in curves:
        for more in curve["more"]:
            gain = gain_in_words(measure, more["gain"])
            score = Cell(figures(more["score"]["value"]), ends(more["score"]), is_number=True)
            rows.append([curve["title"], number(f"{more['size']:,}"), score, Cell(gain)])
    most = max(row["size"] for row in results["rows"] if not row["failed"])
    columns = ["recipe", "training rows", f"{name}, expected", f"against {most:,} rows"]
    why = (
        "A power law through the errors at all sizes, which never rises. Few sizes do not show where it ends, so "
        "ends between none and the least error seen are all believed; the interval holds what that, the choice of "
        "test rows and that of a seed leave open, but not which rows were labelled."
    )
    drawn = [_curve(curve, results, place) for place, curve in enumerate(curves) if not curve["is_baseline"]]
    caption = (
        f"{name.capitalize()} by training rows; the line goes on to four times the most, its 95 % interval beside it"
    )
    told = "What more rows would bring, with 95 % intervals"
    return [Text(why), *([Figure(caption, drawn)] if drawn else []), table(told, columns, rows)]


def _curve(curve: Mapping[str, Any], results: Results, place: int) -> str:
    """A recipe's scores at its sizes with its law, and the strongest baseline beside it."""
    own = [row for row in in_order(results) if row["title"] == curve["title"]]
    line = [(each["size"], each["value"]) for each in curve["line"]]
    most = own[-1]["size"]
    band = [[(each["size"], each[end]) for each in curve["line"] if each["size"] >= most] for end in ("low", "high")]
    series = [
        Dots(line, "dev", joined=True, bare=True),
        *(Dots(points, "faint", joined=True, bare=True) for points in band),
        Dots(
            [(row["size"], row["score"]["value"]) for row in own],
            "after",
            spreads=[(row["score"]["low"], row["score"]["high"]) for row in own],
        ),
    ]
    beside = [row for row in in_order(results) if row["is_baseline"] and row["size"] == most]
    title = curve["title"]
    if beside:
        same = [row for row in in_order(results) if row["title"] == beside[0]["title"]]
        series.insert(0, Dots([(row["size"], row["score"]["value"]) for row in same], "baseline", joined=True))
        title += f", and {beside[0]['title']} in grey"
    told = "; ".join(f"{row['size']:,} rows {figures(row['score']['value'])}" for row in own)
    return plot(f"curve-{place}", title, f"{told}.", series, "training rows", log=True)


def _pairs(results: Results) -> list[Block]:
    if not results["pairs"]:
        return []
    measure = results["measure"]
    titles = {row["name"]: row["title"] if row["is_baseline"] else row["name"] for row in results["rows"]}
    sizes = {row["name"]: row["size"] for row in results["rows"]}
    has_sizes = len(set(sizes.values())) > 1
    rows = [
        [
            titles[pair["one"]],
            titles[pair["other"]],
            *([number(f"{sizes[pair['one']]:,}")] if has_sizes else []),
            Cell(gain_in_words(measure, pair["gain"], "")),
            number(p_value(pair["p_value"])),
            number(p_value(pair["p_adjusted"])),
            pair["outcome"],
        ]
        for pair in results["pairs"]
    ]
    gained = "its error less the other's" if is_lower_better(measure) else "gain of the first"
    columns = ["one", "other", *(["training rows"] if has_sizes else []), gained]
    columns += ["p", "p, adjusted", "the first is"]
    apart = sum(pair["outcome"] != "not distinguishable" for pair in results["pairs"])
    told = f"{apart:,} of {len(rows):,} pairs can be told apart, with one error in twenty over all of them."
    return [Text(told), table("Every pair, with 95 % intervals", columns, rows)]


def _failed(results: Results) -> list[Block]:
    rows = [[row["name"], Cell(without_folders(row["failed"]))] for row in results["rows"] if row["failed"]]
    return [table("The same command tries them once more", ["run", "why"], rows)] if rows else []
