"""Contenders that take turns: each a process of its own, since allocator and threads are a process's, one at work."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Turn = dict[str, float]


class Contender:
    """A worker process that does one piece of work whenever it is told to, and sleeps in between."""

    def __init__(self, command: Sequence[str]):
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self) -> Turn:
        """What the worker measured in one more piece of work. RuntimeError if it has died."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries print, too
                return json.loads(line)  # type: ignore[no-any-return]
        raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")

    def end(self) -> None:
        """Stops the process."""
        self.process.kill()
        self.process.wait()


def race(commands: Mapping[str, Sequence[str]], n_rounds: int) -> dict[str, list[Turn]]:
    """n_rounds turns of each, one after the other; a first round warms up and is not counted."""
    contenders = {name: Contender(command) for name, command in commands.items()}
    turns: dict[str, list[Turn]] = {name: [] for name in commands}
    try:
        for number in range(n_rounds + 1):
            for name, contender in contenders.items():
                turn = contender.turn()
                if number:
                    turns[name].append(turn)
                print(
                    f"  {'round ' + str(number) if number else 'warm-up'}: {name} {turn}", file=sys.stderr, flush=True
                )
    finally:
        for contender in contenders.values():
            contender.end()
    return turns


def median(turns: Sequence[Turn], what: str) -> float:
    """The middle value of one measurement."""
    return statistics.median(turn[what] for turn in turns)


def whistles() -> Iterator[None]:
    """In a worker: yields whenever it is its turn."""
    for _ in sys.stdin:
        yield


def report(turn: Mapping[str, Any]) -> None:
    """In a worker: says what was measured."""
    print(json.dumps(turn), flush=True)


def write_rows(path: Path, texts: Sequence[str], y: Sequence[int]) -> None:
    """A CSV file with the columns text and label."""
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(texts, y, strict=True))


def matrix_peak(seconds: float = 2.0) -> float:
    """FLOP/s of large fp32 matrix products, or bf16 where that is faster: what no step can exceed."""
    import torch

    best = 0.0
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(1024, 1536).to(dtype), torch.randn(1536, 1536).to(dtype)
        for _ in range(3):
            a @ b
        times, started = [], time.perf_counter()
        while time.perf_counter() - started < seconds / 2:
            before = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - before)
        best = max(best, 2 * 1024 * 1536 * 1536 / statistics.median(times))
    return best
