"""The folder of a comparison: what is in it.

settings.json   what is compared, by which the same command finds its comparison again
cells/          for each cell its recipe, a lock while a process is at it, what was measured when it was over, or why
                it failed
logs/           what each run and each search said
searches/       with --tune, the search for each cell's recipe
runs/           a whole run folder for each cell
compare.json    every number of the comparison, once it is over
compare.html    its page
"""

from __future__ import annotations

from pathlib import Path

RESULTS, PAGE = "compare.json", "compare.html"
CELLS, LOGS, SEARCHES, RUNS = "cells", "logs", "searches", "runs"


def measured_file(folder: Path, name: str) -> Path:
    """What says that a cell is over, and holds what was measured beside its run."""
    return folder / CELLS / f"{name}.json"
