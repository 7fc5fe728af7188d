"""All methods on the default data with the preset `fast`: the figures of the table in docs/methods.md.

    python benchmarks/methods.py      half an hour on two cores; then `make docs`; nothing else should run

Writes benchmarks/methods.json, which docs/generate.py makes the table of, and leaves the comparison in
runs/imdb-minilm-compare with its page.
"""

from __future__ import annotations

import json
from pathlib import Path

import lightune
from setting import machine

RESULTS = Path(__file__).parent / "methods.json"
KEPT = ("name", "method", "size", "is_baseline", "failed", "score", "trainable_parameters", "seconds")
KEPT += ("peak_memory_bytes", "artifact_bytes", "texts_per_second")


def main() -> None:
    """Compares, and keeps what the table shows."""
    found = lightune.compare(methods="all", preset="fast")
    rows = [{key: row[key] for key in KEPT if key in row} for row in found.results["rows"]]
    kept = {key: found.results[key] for key in ("measure", "n_test", "time_budget", "verdicts")}
    record = {"machine": machine(), "seconds": found.results["seconds"]["total"], "rows": rows, **kept}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
