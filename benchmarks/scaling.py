"""lightune's training time over more and more rows: it should grow as the tokens do, not faster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jobs
import turns
from setting import Rows, Setting, reviews, token_lengths, write_rows

TEST_ROWS = 100


def measure(setting: Setting) -> dict[str, Any]:
    """One `lightune run` for each number of rows; power: of the tokens, by which the seconds grow (1 is linear)."""
    sizes = setting.sizes
    n_test = min(TEST_ROWS, sizes.test_rows)
    rows, test = reviews(max(sizes.scaling_rows), n_test, tuning=None)
    points = [_point(setting, rows, test, n_rows) for n_rows in sizes.scaling_rows]
    return {"points": points, "power": power(points), "tokens_a_row": sizes.scaling_tokens}


def _point(setting: Setting, rows: Rows, test: Rows, n_rows: int) -> dict[str, float]:
    """The training of a run, its one evaluation of a few dev rows included."""
    limit, n_dev = setting.sizes.scaling_tokens, len(test.y) // 2
    files = [
        write_rows(setting.folder / "scaling.csv", Rows(rows.texts[:n_rows], rows.y[:n_rows])),
        write_rows(setting.folder / "scaling-test.csv", test),
    ]
    settings = {"data.max_tokens": limit, "train.epochs": 1.0, "data.dev_rows": n_dev}
    _, results = jobs.run(setting.model, *files, setting.folder / "scaling", settings)
    share = results["n_train"] / n_rows
    n_tokens = share * sum(token_lengths(setting.model, rows.texts[:n_rows], limit))
    point = {"rows": results["n_train"], "tokens": n_tokens, "seconds": results["seconds"]["train"]}
    turns.say("scaling", f"{n_rows:,} rows", point)
    return point


def power(points: Sequence[dict[str, float]]) -> float:
    """Slope of log(seconds) over log(tokens), least squares."""
    x, y = ([math.log(point[key]) for point in points] for key in ("tokens", "seconds"))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
