"""The commands that train: run, tune and compare."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lightune.commands.common import add_command, add_job, journal_for, options_of, print_json

if TYPE_CHECKING:
    from lightune.records import Result


def add_run(commands: Any) -> None:
    """`lightune run`."""
    add = add_command(
        commands, "run", _run, "evaluate before, fine-tune, evaluate after, prove and report"
    ).add_argument
    add_job(add)
    add("-o", "--output", metavar="FOLDER", help="where the run goes (default: runs/NAME, numbered)")
    add("--overwrite", action="store_true", help="replace a finished run in FOLDER, once the new one is proved")
    add("--seed", type=int, help="of the split, the head, the adapters and the order of rows")
    add(
        "--seeds",
        type=int,
        metavar="N",
        help="train so often on the same split, and tell how far apart it ends",
    )
    add("--time-budget", metavar="TIME", help="90s, 10m, 2h: the run ends by then, with what fits")
    add("--require", metavar="GATE", action="append", help='exit code 3 unless it is so, e.g. "accuracy>tfidf"')
    add("--dry-run", action="store_true", help="show the plan and its cost, and stop")


def _run(arguments: argparse.Namespace) -> None:
    from lightune.run import run

    _print_results(arguments, run(**options_of(arguments), journal=journal_for(arguments)))


def add_tune(commands: Any) -> None:
    """`lightune tune`."""
    summary = "search for a better recipe, and say whether it is one"
    command = add_command(commands, "tune", _tune, summary)
    command.set_defaults(goes_on=True)
    add = command.add_argument
    add_job(add)
    add("--trials", type=int, metavar="N", help="recipes to try (default: 12)")
    add("--time-budget", metavar="TIME", help="30m, 2h: for the search and its two runs")
    add("--seed", type=int, help="of the split and of the whole search")
    add("--no-runs", action="store_true", help="end with best.toml: no run of it, no verdict")
    add(
        "--storage",
        metavar="URL|FILE",
        help="Optuna storage, a database or a journal file (default: search.db in the folder)",
    )
    add(
        "-o",
        "--output",
        metavar="FOLDER",
        help="of the search; one that was cut off goes on (default: runs/NAME-search)",
    )


def _tune(arguments: argparse.Namespace) -> None:
    from lightune.tune import tune

    _print_results(arguments, tune(**options_of(arguments), journal=journal_for(arguments)))


def add_compare(commands: Any) -> None:
    """`lightune compare`."""
    summary = "the same job by several methods, with several models or on several numbers of rows"
    command = add_command(commands, "compare", _compare, summary)
    command.set_defaults(goes_on=True)
    add = command.add_argument
    add_job(add)
    methods = "of `lightune methods`, dora, or with options, lora:rank=4; all (default: five, or the recipe's own)"
    add("--methods", metavar="A,B", help=methods)
    add("--models", metavar="A,B", help="base models (default: the recipe's own)")
    add(
        "--sizes", metavar="N,N,all", help="numbers of training rows: what would more labelling bring? (default: all)"
    )
    add("--seeds", type=int, metavar="N", help="trainings of each (default: as in the recipe)")
    add("--tune", type=int, metavar="N", help="search with N trials for each recipe first")
    add("--time-budget", metavar="TIME", help="90s, 10m: of each run, and of each search")
    add("--seed", type=int, help="of the split and of the first training")
    add(
        "-o",
        "--output",
        metavar="FOLDER",
        help="of the comparison; one that was cut off goes on (default: runs/NAME-compare)",
    )


def _compare(arguments: argparse.Namespace) -> None:
    from lightune.compare import compare

    _print_results(arguments, compare(**options_of(arguments), journal=journal_for(arguments)))


def _print_results(arguments: argparse.Namespace, result: Result) -> None:
    if arguments.json:
        print_json(result.results)
