"""What a comparison shows on the terminal: what runs, a line for each run that is over, and the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from lightune.comparison.folder import PAGE, RUNS
from lightune.comparison.record import Over
from lightune.evidence.score import MEASURES, is_lower_better, spoken
from lightune.hardware import GIB
from lightune.journal import Journal, duration
from lightune.legible import ends, figures, printable, typed, with_interval

MIB = 2**20


class Waiting:
    """What is running and the last line it said, on a terminal; how many are over, and the time that is left."""

    def __init__(self, journal: Journal, n_cells: int):
        self.journal, self.n_cells = journal, n_cells
        self.n_over, self.n_here, self.seconds = 0, 0, 0.0
        self._waited = "", ""
        self._status = journal.console.status("") if journal.console.is_terminal else None

    def __enter__(self) -> Waiting:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._status:
            self._status.stop()

    def tell(self, name: str, line: str) -> None:
        """The run `name` has said `line` last."""
        if self._status:
            from rich.markup import escape

            self._status.update(escape(printable(f"{self.head()} {name}: {line}")[: self.journal.console.width - 4]))

    def waits(self, name: str, why: str) -> None:
        """Nothing runs here: a line that stays, once for each reason, where there is no terminal to show it on."""
        self.tell(name, why)
        if not self._status and (name, why) != self._waited:
            self._waited = name, why
            self.journal.say(f"  {self.head()} {name}: {why}")

    def over(self, seconds: float | None) -> None:
        """One more is over; seconds that it took here, None if it was there already."""
        self.n_over += 1
        if seconds is not None:
            self.n_here += 1
            self.seconds += seconds

    def head(self) -> str:
        """'[3 of 11, about 12 min left]'."""
        left = f", about {duration(self.left())} left" if self.seconds and self.n_over < self.n_cells else ""
        return f"[{self.n_over} of {self.n_cells}{left}]"

    def left(self) -> float:
        """Seconds for what is missing, by the mean so far."""
        return self.seconds / max(1, self.n_here) * (self.n_cells - self.n_over)


def show_cell(waiting: Waiting, over: Over, seconds: float | None) -> None:
    """What came of one run; seconds that it took here, None if it was there already."""
    waiting.over(seconds)
    name, journal = over.cell.name, waiting.journal
    if over.run is None:
        journal.warn(f"{name}: {over.why_not}")
        return
    results = over.run.results
    measure = MEASURES[results["task"]]
    if over.cell.is_baselines:
        told = ", ".join(
            f"{each['title']} {with_interval(each['scores'][measure])}" for each in results["baselines"].values()
        )
    else:
        told = f"{spoken(measure)} {with_interval(results['after'][measure])}"
        told += f", {duration(seconds)}" if seconds is not None else ", there already"
    journal.say(f"  {waiting.head()} {name}: {told}")


def show_comparison(journal: Journal, results: Mapping[str, Any], folder: Path) -> None:
    """The table, the sentences and where everything is."""
    journal.say(f"\n{results['n_test']:,} test rows that share no text with those for training\n")
    journal.show(_table(results))
    journal.say("\nintervals and tests of what was trained count the choice of test rows and of a seed\n")
    for told in results["verdicts"]:
        journal.say(f"verdict: {told}" if told is results["verdicts"][0] else f"  {told}")
    failed = [row["name"] for row in results["rows"] if row["failed"]]
    if failed:
        journal.warn(f"not run: {', '.join(failed)}; the same command tries them once more")
    journal.say(f"{duration(results['seconds']['total'])} in all")
    journal.say(f"the page: {folder / PAGE}")
    journal.say(f"use one: lightune predict {typed(folder / RUNS / 'NAME')} FILE")


def _table(results: Mapping[str, Any]) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    measure = spoken(results["measure"])
    for column in ("", measure, "95 % interval", "trained", "time", "memory", "on disk", "texts/s"):
        table.add_column(column, justify="right" if column else "left", no_wrap=bool(column))
    for row in in_order(results):
        score = row["score"]
        if row["is_baseline"]:
            table.add_row(
                _named(row, results), figures(score["value"]), ends(score), "", duration(row["seconds"]), style="dim"
            )
            continue
        table.add_row(
            _named(row, results),
            figures(score["value"]),
            ends(score),
            f"{row['trainable_parameters']:,}",
            duration(row["seconds"]),
            f"{row['peak_memory_bytes'] / GIB:.2f} GiB",
            f"{row['artifact_bytes'] / MIB:,.1f} MiB",
            f"{row['texts_per_second']:,.0f}",
        )
    return table


def in_order(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that have a score: by size, each time the best first."""
    sign = 1 if is_lower_better(results["measure"]) else -1
    rows = [row for row in results["rows"] if not row["failed"]]
    return sorted(rows, key=lambda row: (row["size"], sign * row["score"]["value"], row["name"]))


def _named(row: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """The name of a row, a baseline's with its training rows where there are several numbers of them."""
    if not row["is_baseline"]:
        return printable(str(row["name"]))
    n_sizes = len({each["size"] for each in results["rows"]})
    return f"{row['title']}, {row['size']:,} rows" if n_sizes > 1 else str(row["title"])
