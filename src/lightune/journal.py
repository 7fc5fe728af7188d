"""What a run says while it works: lines and progress bars for people, events.jsonl for programs.

On a terminal the bars move and show the time left; elsewhere a plain line appears every few seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lightune.legible import printable
from lightune.records import Decision

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_LINE_SECONDS = 10.0


class Progress:
    """How far one long piece of work is; `advance` is cheap enough to be called for every batch."""

    def __init__(self, journal: Journal, label: str, total: int, unit: str):
        self.journal, self.label, self.total, self.unit = journal, label, max(total, 1), unit
        self.done, self.note = 0, ""
        self.started = self.last_line = time.monotonic()

    def advance(self, amount: int, note: str = "") -> None:
        """`amount` more units are done; `note` is shown beside the bar."""
        self.done += amount
        self.note = note or self.note
        self.journal._draw(self)

    @property
    def seconds_left(self) -> float:
        """By the pace so far; 0 before the first unit is done."""
        elapsed = time.monotonic() - self.started
        return elapsed * (self.total - self.done) / self.done if self.done else 0.0


class Journal:
    """The run's voice. `seconds` holds the time of each phase, `decisions` every choice made for the user."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False):
        from rich.console import Console

        self.console: Console = Console(
            file=stream or sys.stdout, quiet=quiet, highlight=False, soft_wrap=True, emoji=False
        )
        if not self.console.is_terminal:
            self.console.width = 120
        self.decisions: list[Decision] = []
        self.seconds: dict[str, float] = {}
        self._running: dict[str, float] = {}  # phase -> when it began
        self._events: Path | None = None
        self._waiting: list[str] = []
        self._bar: Any = None
        self._task: Any = None

    def another(self) -> Journal:
        """A new one, heard in the same place."""
        new = Journal(quiet=self.console.quiet)
        new.console = self.console
        return new

    def begin(self) -> None:
        """Forgets the run before: a journal may tell of several, one after the other."""
        self.decisions.clear()
        self.seconds.clear()
        self._waiting.clear()

    @contextmanager
    def events_in(self, path: Path) -> Iterator[None]:
        """Inside, every event, those so far included, becomes a line of JSON in `path`."""
        self._events = path
        with path.open("a", encoding="utf-8") as file:
            file.writelines(self._waiting)
        self._waiting.clear()
        try:
            yield
        finally:
            self._events = None

    def event(self, kind: str, **values: Any) -> None:
        """One line in events.jsonl: seconds since the epoch, the kind, the values."""
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **values}) + "\n"
        if self._events is None:
            self._waiting.append(line)
            return
        with self._events.open("a", encoding="utf-8") as file:
            file.write(line)

    def say(self, text: str = "") -> None:
        """A line for the reader; not markup, whatever it contains."""
        self.console.print(printable(text), markup=False)

    def show(self, renderable: Any) -> None:
        """A rich table or rule."""
        self.console.print(renderable)

    def warn(self, text: str) -> None:
        """Something the user should look at; the run goes on."""
        self.event("warning", text=text)
        self.console.print(f"warning: {printable(text)}", style="yellow", markup=False)

    def decide(self, *decisions: Decision) -> None:
        """Prints and keeps choices that were made for the user."""
        for decision in decisions:
            self.decisions.append(decision)
            self.event("decision", what=decision.what, choice=decision.choice, why=decision.why)
            what, choice, why = map(printable, (decision.what, decision.choice, decision.why))
            self.console.print(f"  {what}: ", markup=False, end="")
            self.console.print(choice, markup=False, style="bold", end="")
            self.console.print(f"  ({why})" if why else "", markup=False, style="dim")

    @contextmanager
    def phase(self, name: str, title: str) -> Iterator[None]:
        """Announces a stage of the journey and adds its wall time to `seconds[name]`."""
        self.event("phase", name=name)
        self.console.print(f"\n{title}", style="bold cyan", markup=False)
        self._running[name] = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - self._running.pop(name)
        self.event("phase_end", name=name, seconds=round(self.seconds[name], 3))

    def spent(self) -> dict[str, float]:
        """Seconds of each phase so far, those that still run included, and their "total"."""
        running = {name: time.monotonic() - began for name, began in self._running.items()}
        phases = self.seconds | {name: self.seconds.get(name, 0.0) + time_ for name, time_ in running.items()}
        return {name: round(value, 3) for name, value in (phases | {"total": sum(phases.values())}).items()}

    @contextmanager
    def progress(self, label: str, total: int, unit: str = "texts") -> Iterator[Progress]:
        """A bar with the time left; `total` in `unit`."""
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        progress = Progress(self, label, total, unit)
        if self.console.is_terminal and not self.console.quiet:
            columns = TextColumn("  {task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
            self._bar = Bar(*columns, TextColumn("{task.fields[note]}"), console=self.console, transient=True)
            self._task = self._bar.add_task(label, total=progress.total, note="")
            self._bar.start()
        try:
            yield progress
        finally:
            if self._bar is not None:
                self._bar.stop()
            self._bar = None

    def _draw(self, progress: Progress) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.done, note=progress.note)
        elif time.monotonic() - progress.last_line >= PLAIN_LINE_SECONDS and progress.done < progress.total:
            progress.last_line = time.monotonic()
            share = progress.done / progress.total
            left = duration(progress.seconds_left)
            self.say(f"  {progress.label} {share:4.0%}, {left} left  {progress.note}".rstrip())


def duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
