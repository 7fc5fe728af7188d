"""Does the fast path cost accuracy? The same job on the fast and on the plain path, seed by seed, in a paired test.

`python benchmarks/same_accuracy.py [SEEDS] [ROWS] [FIRST]` trains MiniLM on so many IMDB reviews of 128 tokens, one
epoch, and scores 1,000 others; a seed (FIRST and those after it) draws the rows, the head, the adapters and the order
anew. The plain path is the network of transformers and PEFT under autocast. Exit code 1 if the fast path is lower by
McNemar's exact test at 5 %: a handful of rows differ, too few for the bootstrap interval that is printed beside it.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

SETTINGS = {
    "data.max_tokens": 128,
    "data.test_rows": 1000,
    "data.dev_rows": 100,
    "train.max_tokens": "auto",
    "train.layers": "all",
    "train.learning_rate": 1e-3,
    "train.cache": False,
}


def right_answers(seed: int, n_rows: int, folder: Path, *, fast: bool) -> np.ndarray:
    """Which of the test rows were right after training, (1000,) bool; and how long the training took is printed."""
    import lightune
    from lightune import run
    from lightune.journal import Journal
    from lightune.records import Proof
    from lightune.training import fine_tune, rehearsal

    kept = run.quicken, rehearsal.quicken, fine_tune.quicken, run.prove
    if not fast:
        run.quicken = rehearsal.quicken = fine_tune.quicken = lambda model, precision: []
        # the fresh process of a proof takes the fast path: nothing is proved here, and nothing is used afterwards
        run.prove = lambda *_, **__: Proof(0, 0.0, 0.0, True)
    try:
        settings: dict[str, Any] = {**SETTINGS, "data.train_rows": n_rows}
        journal = Journal(io.StringIO())
        result = lightune.run(settings=settings, seed=seed, output=folder, overwrite=True, journal=journal)
    finally:
        run.quicken, rehearsal.quicken, fine_tune.quicken, run.prove = kept
    written_out = any(d["choice"].startswith("written out") for d in result.results["decisions"])
    if written_out != fast:
        raise SystemExit(f"seed {seed}: the check of the fast path refused it, so that there is nothing to compare")
    table = pq.read_table(folder / "predictions.parquet")
    right = np.array(table["after"].to_pylist()) == np.array(table["label"].to_pylist())
    path, seconds = "fast" if fast else "plain", result.results["seconds"]["train"]
    print(f"seed {seed}, {path:5}: accuracy {right.mean():.4f}, training {seconds:.0f} s", flush=True)
    return right


def main(n_seeds: int = 3, n_rows: int = 1500, first: int = 0) -> bool:
    """Prints each run, and the difference over all seeds with its test; whether the fast path is not lower."""
    from lightune.evidence.statistics import mcnemar, paired_difference

    fast, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + n_seeds):
            fast.append(right_answers(seed, n_rows, Path(folder, "run"), fast=True))
            plain.append(right_answers(seed, n_rows, Path(folder, "run"), fast=False))
    old, new = np.concatenate(plain), np.concatenate(fast)
    difference, test = paired_difference(old, new, 2000, np.random.default_rng(0)), mcnemar(old, new)
    low, high = 100 * difference.low, 100 * difference.high
    print(f"fast minus plain: {100 * difference.value:+.2f} points (95 % CI {low:+.2f} to {high:+.2f})")
    print(f"right on the fast path only: {test.fixed}, on the plain path only: {test.broken}, p = {test.p_value:.3f}")
    return test.fixed >= test.broken or test.p_value >= 0.05


if __name__ == "__main__":
    sys.exit(0 if main(*map(int, sys.argv[1:])) else 1)
