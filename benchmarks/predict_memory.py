"""Peak memory of `lightune predict` on a small and a large file of each kind: python benchmarks/predict_memory.py RUN

Counts the process's own memory (`memory.py`). The rows are made up: a short text and a long cell beside it, so that
the file grows and the network's work does not. Exit code 1 if a large file takes 200 MiB more than a small one.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

import memory
from memory import MIB

ROWS = {"small": 2_000, "large": 60_000}


def make_rows(n_rows: int) -> Iterator[dict[str, str]]:
    """Rows of about 6 KB each."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=6)) for _ in range(500)]
    cells = [" ".join(rng.choices(words, k=800)) for _ in range(100)]
    for i in range(n_rows):
        yield {"text": " ".join(rng.choices(words, k=2)), "id": str(i), "beside": cells[i % 100]}


def write_csv(path: Path, rows: Iterator[dict[str, str]]) -> None:
    """No cell needs quotes."""
    with path.open("w") as file:
        file.write("text,id,beside\n")
        file.writelines(",".join(row.values()) + "\n" for row in rows)


def write_jsonl(path: Path, rows: Iterator[dict[str, str]]) -> None:
    """One object a line."""
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_parquet(path: Path, rows: Iterator[dict[str, str]]) -> None:
    """One row group, the least friendly layout."""
    table = pa.Table.from_pylist(list(rows))
    parquet.write_table(table, path, row_group_size=10**9, compression="none", use_dictionary=False)


KINDS: dict[str, Callable[[Path, Iterator[dict[str, str]]], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


def work(run: str, data: str, output: str) -> None:
    """One worker: labels a file."""
    from lightune.use.files import predict_file

    memory.report(lambda: predict_file(run, data, output)["rows"])


def main(run: str) -> bool:
    """Prints a line per file; whether all peaks are within the limit."""
    within = True
    print(f"{'file':<14} {'rows':>7} {'size':>9} {'peak':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for kind, write in KINDS.items():
            peaks = {}
            for name, n_rows in ROWS.items():
                path = Path(folder, f"{name}.{kind}")
                write(path, make_rows(n_rows))
                answers = path.with_name(f"answers{path.suffix}")
                _, peaks[name] = memory.peak_of(__file__, run, str(path), str(answers))
                size, peak = f"{path.stat().st_size / MIB:.0f} MiB", f"{peaks[name] / MIB:.0f} MiB"
                print(f"{path.name:<14} {n_rows:>7,} {size:>9} {peak:>9}", flush=True)
            within &= peaks["large"] - peaks["small"] < 200 * MIB
    return within


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(*sys.argv[2:])
    else:
        sys.exit(0 if main(sys.argv[1]) else 1)
