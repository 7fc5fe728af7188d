"""What a search shows on the terminal: a table that lives while trials run, a line for each, and the outcome."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lightune.journal import Journal, duration
from lightune.legible import figures, typed
from lightune.search.folder import BEST, PAGE, WINNER, run_name
from lightune.search.study import REPORTS, Attempt, Study, Trial
from lightune.search.trials import Chosen, Final, Finalist

SHOWN = 5  # of the best trials, in the table


class Board:
    """The best so far, what is running and the time left; off a terminal, the lines alone."""

    def __init__(self, journal: Journal, study: Study, deadline: float | None = None):
        from rich.live import Live

        self.journal, self.study, self.deadline = journal, study, deadline  # of the trials, in monotonic time
        self._waited: set[str] = set()
        is_drawn = journal.console.is_terminal and not journal.console.quiet
        self._live = Live(console=journal.console, transient=True, auto_refresh=False) if is_drawn else None

    def __enter__(self) -> Board:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
            self._live = None
        n_tried, has_end = len(self.study.settled()), self.deadline is not None
        if kind is None and has_end and n_tried < self.study.n_trials:
            self.journal.say(f"  the time for trials is over: {n_tried} of {self.study.n_trials} were tried")

    def begin(self) -> None:
        """Of trials and finals that earlier processes have made, how many."""
        if n_tried := len(self.study.settled()):
            n_finals = len(self.study.finals())
            finals = f", and {n_finals} of the trainings with fresh seeds" if n_finals else ""
            self.journal.say(f"  {n_tried} of {self.study.n_trials} trials are over by now{finals}")

    def tell(self, attempt: Attempt, over: Trial | None, why: str) -> None:
        """A trial begins, or is over; neither where it failed, by what `why` says, and is tried once more."""
        settled, is_running = self.study.settled(), over is None and not why
        if over is not None:
            self.journal.say(_line(over, settled, self.study))
        elif why:
            self.journal.say(f"  trial {attempt.number + 1} broke off: {why}; it is tried once more")
        if self._live:
            left = None if self.deadline is None else self.deadline - time.monotonic()
            self._live.update(_table(settled, attempt if is_running else None, self.study, left), refresh=True)

    def waits(self, what: str) -> None:
        """Said once: this process has nothing to do until others are through with `what`."""
        if what not in self._waited:
            self.journal.say(f"  waiting for another process, which is at {what}")
        self._waited.add(what)

    def tell_final(self, finalist: Finalist, seed: int, final: Final) -> None:
        """A finalist was trained with a fresh seed."""
        found = f"cannot be trained: {final.why}"
        if math.isfinite(final.loss):
            found = f"dev loss {figures(final.loss)}, {_scores(final.scores)}"
        self.journal.say(f"  {finalist.name}, seed {seed}: {found}")


def _line(trial: Trial, settled: Sequence[Trial], study: Study) -> str:
    """What came of a trial."""
    tried = ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in trial.values.items())
    head = f"  trial {trial.number + 1} of {study.n_trials}"
    if trial.state == "failed":
        return f"{head} failed: {trial.why}  ({tried})"
    if trial.loss is None:
        part, loss = max(trial.reports.items())
        return (
            f"{head} stopped after {part} of {REPORTS} parts: dev loss {figures(loss)}, others did better  ({tried})"
        )
    best = min(each.loss for each in settled if each.loss is not None)
    mark = ", the best so far" if trial.loss == best else ""
    return (
        f"{head}: dev loss {figures(trial.loss)}, {_scores(trial.scores)}{mark}  ({tried}; {duration(trial.seconds)})"
    )


def _scores(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {figures(value)}" for name, value in scores.items() if name != "loss")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "own" if value is None else str(value)


def _table(settled: Sequence[Trial], running: Attempt | None, study: Study, most: float | None) -> Any:
    """The best so far and what is running. most: seconds that are left for trials."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    spent = sum(trial.seconds for trial in settled)
    left = spent / len(settled) * (study.n_trials - len(settled)) / study.n_alive() if settled else 0.0
    left = left if most is None else max(0.0, min(left, most))
    states = [sum(trial.state == state for trial in settled) for state in ("complete", "stopped", "failed")]
    counted = ", ".join(
        f"{n} {state}" for n, state in zip(states, ("complete", "stopped", "failed"), strict=True) if n
    )
    title = f"{len(settled)} of {study.n_trials} trials ({counted}), about {duration(left)} left"
    table = Table(box=None, padding=(0, 3, 0, 2), header_style="bold")
    for column in ("trial", "dev loss", *study.space):
        table.add_column(column.rpartition(".")[2], justify="right")
    complete = [(trial.loss, trial) for trial in settled if trial.loss is not None]
    for loss, trial in sorted(complete, key=lambda pair: pair[0])[:SHOWN]:
        table.add_row(str(trial.number + 1), figures(loss), *(_short(trial.values.get(key)) for key in study.space))
    if running:
        table.add_row(str(running.number + 1), "running", *(_short(running.values[key]) for key in study.space))
    return Group(Text(title if settled else f"the first of {study.n_trials} trials"), table)


def show_finals(journal: Journal, chosen: Chosen) -> None:
    """The finalists by their mean, the winner, and how much better the best trial would look by luck."""
    means = {number: float(np.mean(list(losses.values()))) for number, losses in chosen.losses.items()}
    for finalist in sorted(chosen.finalists, key=lambda each: means[each.number]):
        mark, mean = ", the winner" if finalist is chosen.winner else "", means[finalist.number]
        found = f"dev loss {figures(mean)} on average{mark}" if math.isfinite(mean) else "cannot be trained"
        journal.say(f"  {finalist.name}: {found}")
    if chosen.luck:
        told = f"luck alone makes the best of the trials look better by {figures(chosen.luck)}; fresh seeds do not"
        journal.say(f"  {told}")


def show_outcome(journal: Journal, results: Mapping[str, Any], folder: Path) -> None:
    """The verdict and where everything is."""
    own: Mapping[str, Any] = next((trial["values"] for trial in results["trials"] if trial["is_as_it_is"]), {})
    found = [
        f"  {key} = {value}"
        for key, value in results["winner"]["values"].items()
        if key not in own or own[key] != value
    ]
    journal.say("\n" + ("\n".join(found) or "  the recipe as it is"))
    journal.say(f"\nverdict: {results['verdict']}")
    if results["runs"]:
        journal.say(f"the verdict on the winner alone: {results['runs'][WINNER]['verdict']}")
    journal.say(f"{duration(results['seconds']['total'])} in all")
    journal.say(f"the recipe found: {folder / BEST}   (read {folder / PAGE})")
    for name in results["runs"]:
        journal.say(f"use {run_name(results, name)}: lightune predict {typed(folder / name)} FILE")
    if not results["runs"]:
        journal.say(f"run it: lightune run {typed(folder / BEST)}")
