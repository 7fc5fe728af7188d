"""Contenders that take turns: each a process of its own, since allocator and threads are a process's, one at work."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Turn = dict[str, Any]


class Contender:
    """A worker process that does one piece of work whenever it is told to, and sleeps in between."""

    def __init__(self, command: Sequence[str]):
        self.command = command
        self.process: subprocess.Popen[str] | None = None

    def turn(self) -> Turn:
        """What the worker measured in one more piece of work; the first starts it. RuntimeError if it has died."""
        if self.process is None:
            words = [sys.executable, *self.command]
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin
        assert self.process.stdout
        with suppress(BrokenPipeError):  # it has died, which is told below
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if (turn := parse(line)) is not None:
                return turn
        raise RuntimeError(f"{self.command} ended with {self.process.wait()}")

    def end(self) -> None:
        """Stops the process."""
        if self.process is not None:
            with self.process, suppress(BrokenPipeError):
                self.process.kill()


def race(commands: Mapping[str, Sequence[str]], n_rounds: int, warm_up: float = 0.0) -> dict[str, list[Turn]]:
    """n_rounds turns of each, one after the other.

    A first round is not counted: one turn of each, which starts its process, and as many more as begin within
    `warm_up` seconds. A process meets what is new to it there: kernels for the shapes of its products, memory.
    """
    contenders = {name: Contender(command) for name, command in commands.items()}
    turns: dict[str, list[Turn]] = {name: [] for name in commands}
    try:
        for number in range(n_rounds + 1):
            for name, contender in contenders.items():
                turn, started = contender.turn(), time.perf_counter()
                if number:
                    turns[name].append(turn)
                while not number and time.perf_counter() - started < warm_up:
                    turn = contender.turn()
                say(f"round {number}" if number else "warm-up", name, turn)
    finally:
        for contender in contenders.values():
            contender.end()
    return turns


@dataclass(frozen=True)
class Finished:
    """A process that has ended: what it reported and when, its wall time, the most memory it or a child held.

    peak_bytes: as the kernel counts, which is never less than what the process that started it held.
    """

    reports: list[tuple[float, Turn]]
    seconds: float
    peak_bytes: int


def finish(command: Sequence[str]) -> Finished:
    """Runs a Python command to its end. RuntimeError if it fails."""
    started = time.perf_counter()
    reports: list[tuple[float, Turn]] = []
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if (turn := parse(line)) is not None:
                reports.append((time.perf_counter() - started, turn))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return Finished(reports, time.perf_counter() - started, usage.ru_maxrss * 1024)


def parse(line: str) -> Turn | None:
    """What a worker reported in this line; None for whatever else libraries print."""
    return json.loads(line) if line.startswith('{"') else None


def say(when: str, name: str, turn: Mapping[str, Any]) -> None:
    """One line about one turn, lists left out, on standard error."""
    short = {key: value for key, value in turn.items() if not isinstance(value, list)}
    print(f"  {when}: {name} {short}", file=sys.stderr, flush=True)


def median(turns: Sequence[Turn], what: str) -> float:
    """The middle value of one measurement."""
    return float(statistics.median(turn[what] for turn in turns))


def whistles() -> Iterator[None]:
    """In a worker: yields whenever it is its turn."""
    for _ in sys.stdin:
        yield


def report(turn: Mapping[str, Any]) -> None:
    """In a worker: says what was measured."""
    print(json.dumps(turn), flush=True)


def now() -> float:
    """In a worker: the clock, once the GPU has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_bytes() -> int:
    """In a worker: the most that it has held of the GPU's memory, or of RAM without one."""
    torch = sys.modules.get("torch")  # who came without it is not charged for its import
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    # getrusage would begin with what the parent held when it started this process
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def matrix_peak(seconds: float = 2.0) -> float:
    """FLOP/s of large fp32 matrix products, or bf16 where that is faster: what no step can exceed."""
    import torch

    on_gpu = torch.cuda.is_available()
    rows, inner = (8192, 8192) if on_gpu else (1024, 1536)
    best = 0.0
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(n, inner, device="cuda" if on_gpu else "cpu").to(dtype) for n in (rows, inner))
        for _ in range(3):
            a @ b
        times, started = [], now()
        while now() - started < seconds / 2:
            before = now()
            a @ b
            times.append(now() - before)
        best = max(best, 2 * rows * inner * inner / statistics.median(times))
    return best
