"""Make report.html, one file that opens without a network, from a finished run's own files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lightune.artifact.finished import FinishedRun
from lightune.artifact.folder import replacing
from lightune.legible import visible
from lightune.report import answers, explained, measured, provenance
from lightune.report.card import base_name, public_name
from lightune.report.parts import Block, Section

if TYPE_CHECKING:
    from jinja2 import Template

T = TypeVar("T")
SECTIONS: dict[str, tuple[str, Callable[[FinishedRun], list[Block]]]] = {  # id -> heading, what it holds
    "verdict": ("Verdict", measured.verdict),
    "scores": ("Before and after", measured.scores),
    "learning": ("Learning curve", measured.learning),
    "confusion": ("Confusion", measured.confusion),
    "calibration": ("Calibration", measured.calibration),
    "slices": ("Parts of the test rows", measured.slices),
    "rows": ("Rows fixed, rows broken, confident mistakes", answers.listed),
    "words": ("Words behind some of these answers", explained.explained),
    "findings": ("What the doctor found in the data", provenance.findings),
    "cost": ("Cost, choices and environment", provenance.cost),
    "reproduce": ("How to make it again", provenance.reproduce),
}


HEADINGS_OF_NUMBERS = {  # where labels are numbers
    "confusion": "Answers and labels",
    "calibration": "Intervals",
    "rows": "Rows nearer, rows further off, large mistakes",
}


def run_page(run: FinishedRun) -> str:
    """The page of one run; a section that this run has nothing for is left out."""
    run = without_folders(run)
    results = run.results
    title = f"{results['model']['name']} on {results['data']['source']}"
    subtitle = f"Report of the run {run.name}: {results['recipe']['method']['name']}, {results['n_train']:,} texts"
    other = HEADINGS_OF_NUMBERS if run.predictions.are_numbers else {}
    made = [Section(name, other.get(name, heading), content(run)) for name, (heading, content) in SECTIONS.items()]
    return render(title, subtitle, [section for section in made if section.blocks])


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page as HTML; whatever the names and texts in it are, they stay text."""
    return _template().render(title=title, subtitle=subtitle, sections=sections)


def write_page(page: str, path: Path) -> None:
    """Writes the page to `path`, which is replaced in one step."""
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")


def without_folders(run: FinishedRun) -> FinishedRun:
    """The run with the last part alone of every path of data or model: pages are passed around."""
    data = run.results["data"]
    names = {name: base_name(name) for name in (run.results["model"]["name"], run.results["recipe"]["model"])}
    names |= {data[key]: public_name(data[key], data["revision"]) for key in ("source", "test") if data[key]}
    longest_first = {path: names[path] for path in sorted(names, key=len, reverse=True) if names[path] != path}
    kept = {name: _renamed(getattr(run, name), longest_first) for name in ("results", "doctor", "unexplained")}
    return replace(run, **kept)


def _renamed(values: T, names: Mapping[str, str]) -> T:
    """Values of JSON with each name in their texts replaced."""
    new: Any = values
    if isinstance(values, dict):
        new = {key: _renamed(value, names) for key, value in values.items()}
    elif isinstance(values, list):
        new = [_renamed(value, names) for value in values]
    elif isinstance(values, str):
        for path, name in names.items():
            new = new.replace(path, name)
    return new  # type: ignore[no-any-return]


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("lightune.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_seen,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _seen(value: Any) -> Any:
    """What the template writes: plain texts with their invisible characters shown, markup of its own as it is."""
    return visible(value) if type(value) is str else value
