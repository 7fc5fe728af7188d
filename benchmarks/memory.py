"""Peak own memory of a piece of work in a process of its own (RssAnon, Linux).

Pages of a mapped file can be dropped by the system at any time and are left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 2**20


def peak_of(script: str, *arguments: str) -> tuple[Any, int]:
    """What `script worker …` reports of its work, and the bytes at its peak."""
    command = [sys.executable, script, "worker", *arguments]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    report = json.loads(lines[-1])  # libraries print, too
    return report["answer"], report["peak"]


def report(work: Callable[[], Any]) -> None:
    """The worker's side: does the work and prints its answer and the peak."""
    peaks = [0]
    threading.Thread(target=_watch, args=(peaks,), daemon=True).start()
    answer = work()
    print(json.dumps({"answer": answer, "peak": peaks[0]}))


def _watch(peaks: list[int]) -> None:
    while True:
        peaks[0] = max(peaks[0], _own_bytes())
        time.sleep(0.005)


def _own_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024
