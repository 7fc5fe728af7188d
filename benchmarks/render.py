"""The figures of a results file as a Markdown section and as a picture (PNG and SVG), from that file alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]  # of one part: "figures", and what stands beside them
MIB = 2**20
INK, SOFT, OURS, THEIRS = "#1F2933", "#66717D", "#0067A5", "#B8C0C8"


def render(path: Path) -> None:
    """Writes the .md, .png and .svg beside a results file."""
    parts = json.loads(path.read_text(encoding="utf-8"))
    path.with_suffix(".md").write_text(markdown(parts, path.with_suffix(".svg").name), encoding="utf-8")
    draw(parts, path)


def markdown(parts: Mapping[str, Record], picture: str) -> str:
    """The whole section: the machine and the command of each part, its table, the picture."""
    sections = [f"## Benchmark\n\n![The figures below as bars]({picture})\n"]
    sections += [
        f"### {TITLES[name]}\n\n{_about(parts[name])}\n\n{table(name, parts[name])}" for name in _there(parts)
    ]
    if claim := _claim(parts):
        sections.insert(1, claim)
    return "\n".join(sections)


def table(part: str, record: Record) -> str:
    """The figures of one part as a Markdown table. SystemExit if another version of the benchmark made them."""
    try:
        return TABLES[part](record["figures"])
    except KeyError as error:
        raise SystemExit(f"{part!r}: its figures are of another version (no {error}). Measure it again.") from None


def _there(parts: Mapping[str, Record]) -> list[str]:
    return [name for name in TITLES if name in parts]


def _about(record: Record) -> str:
    machine, versions = record["machine"], record["versions"]
    bf16 = "bf16" if machine["bf16"] else "no bf16"
    gpu = f"{machine['gpu']}; " if machine["gpu"] else ""
    names = ("lightune", "torch", "transformers", "peft", "onnxruntime")
    return (
        f"`{record['command']}` on {gpu}{machine['processor']}, {machine['cores']} cores ({bf16}), "
        f"{machine['threads']} threads, {machine['memory_gib']:.0f} GiB; Python {versions['python']}, "
        + ", ".join(f"{name} {versions[name]}" for name in names)
    )


def _claim(parts: Mapping[str, Record]) -> str:
    """From raw text to a saved model of the tutorial's accuracy: who of ours is first there."""
    jobs = parts["jobs"]["figures"]["contenders"] if "jobs" in parts else {}
    if "tutorial" not in jobs:
        return ""
    base = jobs["tutorial"]
    reached = {n: f for n, f in jobs.items() if _is_ours(n) and f["accuracy"] >= base["accuracy"]}
    if not reached:
        return f"No job of lightune's reaches the tutorial's accuracy, {base['accuracy']:.4f}, in this race.\n"
    name = min(reached, key=lambda name: reached[name]["seconds_bare"])
    ours = reached[name]
    took, took_all, theirs = ours["seconds_bare"], ours["seconds"], base["seconds_bare"]
    return (
        f"From raw text to a saved model of the tutorial's accuracy ({base['accuracy']:.4f}) in {took:,.0f} s "
        f"against {theirs:,.0f} s: {theirs / took:.1f} times as fast, the proof in a fresh process included; with "
        f"evaluations, baselines and report {took_all:,.0f} s, {theirs / took_all:.1f} times "
        f"({name}: {ours['accuracy']:.4f}).\n"
    )


def _is_ours(name: str) -> bool:
    return name.startswith("lightune")


# ------------------------------------------------------------------------------------------------ tables


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _steps(figures: Record) -> str:
    rows = [
        [
            name,
            f"{f['tokens_per_second']:,.0f}",
            f"{f['lowest']:,.0f} to {f['highest']:,.0f}",
            f"{f['ratio']:.1f}x",
            f"{f['of_peak']:.0%}",
            f"{f['peak_bytes'] / MIB:,.0f} MiB",
        ]
        for name, f in figures["contenders"].items()
    ]
    head = [
        "",
        "useful tokens/s",
        "all rounds",
        f"of {figures.get('ratio_to', 'tutorial')}",
        "of peak",
        "peak memory",
    ]
    return _table(head, rows) + _peak(figures)


def _peak(figures: Record) -> str:
    return f"\nMatrix peak in the same race: {figures['matrix_peak_flops'] / 1e9:,.0f} GFLOP/s.\n"


def _jobs(figures: Record) -> str:
    rows = [
        [
            name,
            f"{f['accuracy']:.4f}",
            f"{f['low']:.3f} to {f['high']:.3f}",
            f"{f['seconds_bare']:,.1f} s",
            f"{f['seconds']:,.1f} s",
            "" if f["tokens_per_second"] is None else f"{f['tokens_per_second']:,.0f}",
            "" if f["of_peak"] is None else f"{f['of_peak']:.0%}",
            f"{f['peak_bytes'] / MIB:,.0f} MiB",
        ]
        for name, f in figures["contenders"].items()
    ]
    head = ["", "accuracy", "95 % interval", "to the saved model", "in all", "tokens/s", "of peak", "peak memory"]
    return _table(head, rows) + _peak(figures)


def _answers(figures: Record) -> str:
    rows = [
        [
            name,
            f"{f['tokens_per_second']:,.0f}",
            f["way"],
            f"{f['milliseconds_single']:.1f} ms",
            f["way_single"],
            f"{f['equal']:.1%}",
            f"{f['accuracy']:.3f}",
        ]
        for name, f in figures["contenders"].items()
    ]
    rows += [[name, "", why, "", "", "", ""] for name, why in figures["left_out"].items()]
    return _table(["", "tokens/s", "asked in", "one short text", "asked in", "same labels", "accuracy"], rows)


def _scaling(figures: Record) -> str:
    rows = [[f"{p['rows']:,}", f"{p['tokens']:,.0f}", f"{p['seconds']:,.1f} s"] for p in figures["points"]]
    grows = f"\nThe time grows as the tokens to the power of {figures['power']:.2f}.\n"
    return _table(["training rows", "tokens", "training"], rows) + grows


TITLES = {
    "steps": "Training steps",
    "jobs": "From raw text to a saved model",
    "answers": "Prediction",
    "scaling": "Cost over rows",
}
TABLES: dict[str, Callable[[Record], str]] = {
    "steps": _steps,
    "jobs": _jobs,
    "answers": _answers,
    "scaling": _scaling,
}


# ----------------------------------------------------------------------------------------------- picture


def draw(parts: Mapping[str, Record], path: Path) -> None:
    """Writes `path` with the endings .png and .svg; equal figures, equal bytes."""
    from matplotlib import style
    from matplotlib.figure import Figure

    panels = _panels(parts)
    if not panels:
        return
    look = {"font.size": 8, "text.color": INK, "axes.spines.top": False, "axes.spines.right": False}
    with style.context([look, {"axes.edgecolor": SOFT, "svg.hashsalt": "lightune"}], after_reset=True):
        n_lines, n_columns = -(-len(panels) // 2), min(2, len(panels))
        sheet = Figure(figsize=(5 * n_columns, 2.4 * n_lines), dpi=160, layout="constrained")
        for axes, panel in zip(sheet.subplots(n_lines, n_columns, squeeze=False).flat, [*panels, None], strict=False):
            panel(axes) if panel else axes.set_axis_off()
        sheet.savefig(path.with_suffix(".png"), metadata={"Software": None})
        sheet.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def _panels(parts: Mapping[str, Record]) -> list[Callable[[Any], None]]:
    """What there is to draw, each as a function of its axes."""
    wanted = [
        ("steps", "Training: useful tokens/s over the tutorial's", "tokens_per_second", "tutorial", False),
        ("answers", "Many texts: tokens/s over the pipeline's", "tokens_per_second", "pipeline", False),
        ("answers", "One short text: speed over the pipeline's", "milliseconds_single", "pipeline", True),
    ]
    panels: list[Callable[[Any], None]] = []
    for part, title, key, base, less_is_better in wanted:
        contenders = parts[part]["figures"]["contenders"] if part in parts else {}
        if base in contenders:
            values = {name: figures[key] / contenders[base][key] for name, figures in contenders.items()}
            ratios = {name: 1 / value if less_is_better else value for name, value in values.items()}
            panels.append(lambda axes, title=title, ratios=ratios: _bars(axes, title, ratios))
    if "jobs" in parts:
        panels.insert(1, lambda axes: _over_time(axes, parts["jobs"]["figures"]["contenders"]))
    if "scaling" in parts:
        panels.append(lambda axes: _line(axes, parts["scaling"]["figures"]))
    return panels


def _bars(axes: Any, title: str, ratios: Mapping[str, float]) -> None:
    names = list(ratios)[::-1]
    bars = axes.barh(names, [ratios[n] for n in names], color=[OURS if _is_ours(n) else THEIRS for n in names])
    axes.bar_label(bars, [f"{ratios[n]:.1f}x" for n in names], padding=3)
    axes.set_title(title, loc="left", weight="bold", fontsize=9)
    axes.margins(x=0.12)
    axes.axvline(1, color=SOFT, linewidth=0.6)


def _over_time(axes: Any, contenders: Record) -> None:
    """Accuracy with its interval over the seconds to the saved model."""
    for name, f in contenders.items():
        color, about = OURS if _is_ours(name) else SOFT, [[f["accuracy"] - f["low"]], [f["high"] - f["accuracy"]]]
        axes.errorbar(f["seconds_bare"], f["accuracy"], about, fmt="o", markersize=4, color=color, elinewidth=0.8)
        at = f["seconds_bare"], f["high"]
        axes.annotate(name, at, (0, 3), textcoords="offset points", ha="center", color=color)
    axes.set_xscale("log")
    axes.margins(x=0.2, y=0.15)
    axes.set(xlabel="seconds from raw text to the saved model", ylabel="accuracy")
    axes.set_title("Accuracy over time", loc="left", weight="bold", fontsize=9)


def _line(axes: Any, figures: Record) -> None:
    tokens, seconds = ([point[key] for point in figures["points"]] for key in ("tokens", "seconds"))
    axes.loglog(tokens, [seconds[-1] * n / tokens[-1] for n in tokens], color=THEIRS, label="linear")
    axes.loglog(tokens, seconds, "o-", color=OURS, label=f"lightune, power {figures['power']:.2f}")
    axes.set(xlabel="tokens", ylabel="training, seconds")
    axes.set_xticks(tokens, [f"{n:,.0f}" for n in tokens])
    axes.set_yticks(seconds, [f"{n:,.1f}" for n in seconds])
    axes.minorticks_off()
    axes.set_title("Cost over tokens", loc="left", weight="bold", fontsize=9)
    axes.legend(frameon=False)
