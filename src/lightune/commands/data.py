"""The command that looks at data."""

from __future__ import annotations

import argparse
from typing import Any

from lightune.commands.common import TASK_HELP, add_command, journal_for, options_of, print_json
from lightune.errors import GateError


def add_check(commands: Any) -> None:
    """`lightune check`."""
    add = add_command(commands, "check", _check, "find what is wrong with labelled data").add_argument
    add("data", metavar="DATA", help="whatever `run` reads")
    add("--test", metavar="FILE", help="separate test data, which must not share texts with DATA")
    add("--text", metavar="COLUMN|TEMPLATE", help="what is to be classified")
    add("--pair", metavar="COLUMN|TEMPLATE", help="the second text, where two are classified together")
    add("--label", metavar="COLUMN", help="the column that holds the class, or the number")
    add("--task", metavar="TASK", default="auto", help=TASK_HELP)
    add("--group", metavar="COLUMN", help="what a row is about: it should not be on both sides of a split")
    add("--model", metavar="MODEL", default="minilm", help="looks for wrong labels, counts tokens; none: ''")
    add("--only", metavar="CHECK", action="append", help="this check alone (several times: these)")
    add("--seed", type=int, default=0, help="of what is looked at where not every row is")
    add("--fix", action="store_true", help="write the training rows, repaired, to -o, and the changes beside it")
    add("--show-texts", action="store_true", help="findings with a few of their rows; without it no text is shown")
    add("-o", "--output", metavar="FILE", help="with --fix the repaired copy, else the findings as JSON")
    add("--strict", action="store_true", help="exit code 3 if there is an error among the findings")
    add("--encoding", help="of text files that are not UTF-8, e.g. cp1252")
    add("--delimiter", help="of CSV files, where it is not found by itself")
    add("--offline", action="store_true", help="no request leaves this machine")


def _check(arguments: argparse.Namespace) -> None:
    from lightune.checkup import check

    options = options_of(arguments, "data", "strict")
    diagnosis = check(arguments.data, **options, journal=journal_for(arguments))
    if arguments.json:
        print_json(diagnosis.model_dump())
    if arguments.strict and diagnosis.worst() == "error":
        raise GateError(f"{arguments.data}: has errors, see above.")
