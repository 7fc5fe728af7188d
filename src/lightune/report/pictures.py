"""Draw results.png, 1600 x 1100 pixels, from the dictionary of results.json alone.

All places are in points on a sheet of 720 x 495, origin at the lower left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.artifact.folder import replacing
from lightune.evidence.value_metrics import IN_UNITS
from lightune.journal import duration
from lightune.legible import figures
from lightune.report.card import base_name, public_name
from lightune.report.lettering import fit, fonts, text_width
from lightune.report.panels import draw_answers, draw_confusions, draw_labels
from lightune.report.screen import measure_in, units_in
from lightune.report.sheet import (
    DEV,
    DPI,
    FAINT,
    HEAD,
    HEIGHT,
    INK,
    LEFT,
    PANEL,
    RIGHT,
    SOFT,
    WHEN,
    WIDTH,
    axes_at,
    decimal_of,
    heading_at,
    write_at,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {  # metric -> its name in the picture, in the order of preference
    "f1_micro": "F1 micro",
    "accuracy": "accuracy",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "qwk": "weighted kappa",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1 macro",
    "f1_weighted": "F1 weighted",
    "mcc": "MCC",
    "roc_auc": "ROC AUC",
}
MOST_ROWS = 5  # metrics, and baselines under the accuracy that they share with the tuned classifier
MOST_BASELINES = 2


def draw_results(results: dict[str, Any], path: Path) -> None:
    """Write the picture of `results` to `path` as a PNG of 1600 x 1100 pixels; equal results, equal bytes."""
    from matplotlib import style

    with replacing(path) as part, style.context(_style(), after_reset=True):
        figure(results).savefig(part, format="png", metadata={"Software": None})


def figure(results: dict[str, Any]) -> Figure:
    """The picture of `results`; axes by gid: scores, loss, dev, confusion_before, …_after."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(_style(), after_reset=True):
        sheet = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=DPI)
        _draw_title(sheet, results)
        _draw_scores(sheet, results)
        _draw_curves(sheet, results)
        draw = {"multi_label": draw_labels, "regression": draw_answers}.get(results.get("task", ""), draw_confusions)
        draw(sheet, results)
    return sheet


def _style() -> dict[str, Any]:
    """The house style, on top of matplotlib's defaults: the user's matplotlibrc has no say."""
    both = {"color": SOFT, "labelsize": 7.5, "major.width": 0.6, "major.size": 2.5}
    return {
        "font.family": fonts(),
        "font.size": 8,
        "text.color": INK,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": SOFT,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.formatter.useoffset": False,
        **{f"{axis}tick.{key}": value for axis in "xy" for key, value in both.items()},
    }


def _say(axes: Axes, text: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=SOFT, size=9)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


# ----------------------------------------------------------------------------------------------- title


def _draw_title(sheet: Figure, results: dict[str, Any]) -> None:
    title = "Before and after fine-tuning"
    first = measure_in(results)
    if first in _scores(results):
        before, after = (results[when][first]["value"] for when in ("before", "after"))
        change = _change(before, after)
        if first in units_in(results):
            change = f"{figures(before)} → {figures(after)}"
        title = f"{TITLES[first]} {change}"
    write_at(sheet, LEFT - HEAD, HEIGHT - 33, title, size=17, weight="bold")
    write_at(sheet, LEFT - HEAD, HEIGHT - 48, _facts(results), size=8.5, color=SOFT)
    verdict = fit(results["verdict"], WIDTH - 2 * (LEFT - HEAD), 8.5)
    write_at(sheet, LEFT - HEAD, HEIGHT - 61, verdict, size=8.5)


def _change(before: float, after: float) -> str:
    """'0.502 → 0.884', with a fourth decimal where it takes that to tell the two apart."""
    digits = next((n for n in (3, 4) if f"{before:.{n}f}" != f"{after:.{n}f}"), 3)
    return f"{before:.{digits}f} → {after:.{digits}f}"


def _facts(results: dict[str, Any]) -> str:
    """One line: model, data, method, sizes, trained share, time; the first two get the room that is left."""
    rest = [
        fit(str(results["recipe"]["method"]["name"]), 60, 8.5),
        f"{results['n_train']:,} training and {results['n_test']:,} test texts",
        _share(results["trainable_parameters"], results["total_parameters"]),
        duration(results["seconds"]["train"]),
    ]
    room = WIDTH - 2 * (LEFT - HEAD) - text_width(" · ".join(["", "", *rest]), 8.5)
    data = fit(public_name(**results["data"]), 0.45 * room, 8.5)
    model = fit(base_name(results["model"]["name"]), room - text_width(data, 8.5), 8.5)
    return " · ".join([model, data, *rest])


def _share(part: int, total: int) -> str:
    percent = 100 * part / max(1, total)
    return f"{percent:.{1 if percent >= 0.1 or part == 0 else 3}f} % of {_millions(total)} parameters trained"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count < 1e9 else f"{count / 1e9:.1f}B"


# ---------------------------------------------------------------------------------------------- scores


def _scores(results: dict[str, Any]) -> list[str]:
    """The headline metrics that have a finite value before and after, at most MOST_ROWS."""
    values = [{name: score["value"] for name, score in results[when].items()} for when, *_ in WHEN]
    unlike = () if units_in(results) else IN_UNITS  # a number of classes is not drawn beside shares
    names = [name for name in TITLES if name not in unlike]
    shown = [name for name in names if all(_is_number(value.get(name)) for value in values)]
    return shown[: MOST_ROWS - len(_baselines(results))]


def _baselines(results: dict[str, Any]) -> list[str]:
    """The strongest baselines, at most MOST_BASELINES, the strongest first."""
    measure = measure_in(results)
    scores = {name: each["scores"][measure]["value"] for name, each in results["baselines"].items()}
    best_first = 1 if measure in units_in(results) else -1
    return sorted(scores, key=lambda name: best_first * scores[name])[:MOST_BASELINES]


def _draw_scores(sheet: Figure, results: dict[str, Any]) -> None:
    """A row per metric: before and after as points on their 95 % intervals, the same numbers beside them.

    Where labels are numbers, those in their unit are drawn, and the others told in numbers alone.
    """
    names, beaten, units = _scores(results), _baselines(results), units_in(results)
    axes = axes_at(sheet, LEFT, 290, PANEL - 110, 110, "scores")
    note = "with 95 % intervals; an error is to be small" if units else "with 95 % intervals"
    heading_at(sheet, LEFT, 416, f"Scores on {results['n_test']:,} test texts", note)
    for y, name in zip(_places(names, beaten), names, strict=True):
        is_drawn = name in units or not units
        if is_drawn:
            axes.plot([results[when][name]["value"] for when, *_ in WHEN], [y, y], color=FAINT, lw=2, zorder=1)
        for when, colour, right in WHEN:
            if is_drawn:
                _draw_score(axes, y, results[when][name], colour)
            _write_score(axes, y, results[when][name], right, write=figures if name in units else decimal_of)
    for y, name in enumerate(beaten, start=1):
        score = results["baselines"][name]["scores"][measure_in(results)]
        _draw_score(axes, y, score, SOFT)
        _write_score(axes, y, score, WHEN[0][2], SOFT, write=figures if units else decimal_of)
    if names:
        _dress_scores(sheet, axes, names, beaten, results)
    else:
        _say(axes, "no scores")


def _places(names: Sequence[str], beaten: Sequence[str]) -> list[int]:
    """The rows of the metrics: those below the first one make room for the baselines."""
    return [0, *range(1 + len(beaten), len(names) + len(beaten))][: len(names)]


def _draw_score(axes: Axes, y: float, score: dict[str, Any], colour: str) -> None:
    axes.plot(_interval(score), [y, y], color=colour, lw=9, alpha=0.3, solid_capstyle="butt", zorder=2)
    axes.plot([score["value"]], [y], "o", color=colour, ms=4, mew=0, zorder=3)


def _write_score(
    axes: Axes,
    y: float,
    score: dict[str, Any],
    right: float,
    colour: str = INK,
    write: Callable[[float], str] = decimal_of,
) -> None:
    """The value over its interval, with their right edge at `right` points from the left of the sheet."""
    place = ((right / WIDTH - axes.get_position().x0) / axes.get_position().width, y)
    look: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    look |= {"ha": "right", "annotation_clip": False}
    low, high = (write(end) for end in _interval(score))
    axes.annotate(write(score["value"]), place, (0, 1), size=8.5, color=colour, **look)
    axes.annotate(f"{low} to {high}", place, (0, -8), size=6, color=SOFT, **look)


def _interval(score: dict[str, Any]) -> tuple[float, float]:
    """The score's interval, or the value itself where there is none."""
    if _is_number(score.get("low")) and _is_number(score.get("high")):
        return score["low"], score["high"]
    return score["value"], score["value"]


def _dress_scores(sheet: Figure, axes: Axes, names: list[str], beaten: list[str], results: dict[str, Any]) -> None:
    titles = [TITLES[name] for name in names]
    titles[1:1] = [f"by {name}" for name in beaten]
    units = units_in(results)
    if units:
        rivals = [results["baselines"][name]["scores"][measure_in(results)] for name in beaten]
        drawn = [results[when][name] for name in names if name in units for when, *_ in WHEN]
        axes.set_xlim(0, 1.05 * max([1e-9, *(_interval(score)[1] for score in (*drawn, *rivals))]))
        axes.locator_params(axis="x", nbins=4)
    else:
        lows = [_interval(results[when][name])[0] for name in names for when, *_ in WHEN]
        axes.set_xlim(min([0.0, *(low - 0.03 for low in lows)]), 1.03)
    axes.set_ylim(max(3, len(titles)) - 0.4, -0.6)  # the first metric on top
    axes.set_yticks(range(len(titles)), titles, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.grid(True, color=FAINT, lw=0.5)
    axes.set_axisbelow(True)
    for when, colour, right in WHEN:
        write_at(sheet, right, 402, when, size=8, color=colour, weight="bold", ha="right")


# ---------------------------------------------------------------------------------------------- curves


def _draw_curves(sheet: Figure, results: dict[str, Any]) -> None:
    """Training loss (every step faint, a moving mean over it) and the dev rows' score against optimizer steps."""
    loss = axes_at(sheet, RIGHT, 290, PANEL, 110, "loss")
    dev = loss.twinx()
    dev.set_gid("dev")
    dev.set_visible(bool(results["dev_curve"]))
    heading_at(sheet, RIGHT, 416, "Learning curve", _curve_note(results))
    if results["curve"]:
        _draw_loss(loss, results["curve"])
    if results["dev_curve"]:
        _draw_dev(dev, results["dev_curve"], results["best_step"])
    _dress_curves(loss, dev, results)


def dev_measure(dev_curve: Sequence[Mapping[str, Any]]) -> str:
    """What the state was chosen by: accuracy, F1 of several labels a row, or the mean error of numbers."""
    point = dev_curve[0] if dev_curve else {}
    return next((name for name in ("f1_micro", "mae") if name in point), "accuracy")


def _curve_note(results: dict[str, Any]) -> str:
    best = [point for point in results["dev_curve"] if point["step"] == results["best_step"]]
    name = dev_measure(results["dev_curve"])
    if not best or not _is_number(best[0][name]):
        return ""
    value = figures(best[0][name]) if name in units_in(results) else f"{best[0][name]:.3f}"
    return f"best on {results['n_dev']:,} dev texts: {value} at step {best[0]['step']:,}"


def _draw_loss(axes: Axes, curve: list[dict[str, Any]]) -> None:
    steps, losses = _points(curve, "train_loss")
    axes.plot(steps, losses, color=SOFT, lw=0.6, alpha=0.35, label="train_loss")
    axes.plot(steps, moving_mean(losses), color=SOFT, lw=1.6, label="moving mean")


def _draw_dev(axes: Axes, curve: list[dict[str, Any]], best_step: int) -> None:
    steps, accuracies = _points(curve, dev_measure(curve))
    size = 3.5 if len(steps) <= 30 else 2
    axes.plot(steps, accuracies, "o-", color=DEV, lw=1.4, ms=size, label=dev_measure(curve))
    if best_step in steps:
        best = accuracies[steps.index(best_step)]
        axes.axvline(best_step, color=DEV, lw=0.7, ls=(0, (2, 2)))
        axes.plot([best_step], [best], "o", ms=9, mfc="none", mec=DEV, mew=1.2, label="best")


def _points(curve: list[dict[str, Any]], key: str) -> tuple[list[int], np.ndarray]:
    """Steps and the values (N,) of one key; NaN where the run has no finite number."""
    values = [point[key] if _is_number(point[key]) else math.nan for point in curve]
    return [point["step"] for point in curve], np.array(values)


def moving_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over a twentieth of the (N,) values, fewer at the ends; NaN values do not count."""
    kernel = np.ones(2 * (len(values) // 40) + 1)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), kernel, mode="same")
    count = np.convolve(known.astype(float), kernel, mode="same")
    return np.where(count > 0.5, total / np.maximum(count, 1.0), np.nan)


def _dress_curves(loss: Axes, dev: Axes, results: dict[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    last = max([1, *(point["step"] for point in results["curve"] + results["dev_curve"])])
    loss.set_xlim(0, last * 1.03)
    loss.set_xlabel("optimizer step", labelpad=2)
    loss.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    loss.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    loss.set_ylabel("training loss")
    dev.set_ylabel(f"dev {TITLES[dev_measure(results['dev_curve'])]}", color=DEV)
    dev.tick_params(axis="y", colors=DEV)
    dev.spines["right"].set_visible(True)
    if not results["curve"]:
        _say(loss, "no training step was taken")
