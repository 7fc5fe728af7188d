"""The commands that work with a finished run."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from lightune.commands.common import add_command, add_loading, journal_for, options_of, print_json, print_text
from lightune.errors import UserError


def add_evaluate(commands: Any) -> None:
    """`lightune evaluate`."""
    add = add_command(commands, "evaluate", _evaluate, "score a finished run on other labelled data").add_argument
    add("run", metavar="RUN", help="folder of a run, or its adapter folder")
    add("--data", metavar="DATA", required=True, help="labelled data")
    add("--text", metavar="COLUMN|TEMPLATE", help="default: as in training")
    add("--pair", metavar="COLUMN|TEMPLATE", help="the second text of a pair; default: as in training")
    add("--label", metavar="COLUMN", help="the column that holds the class, or the number")
    add_loading(add)


def _evaluate(arguments: argparse.Namespace) -> None:
    from lightune.use.files import evaluate_file

    results = evaluate_file(**options_of(arguments, "offline"), journal=journal_for(arguments))
    if arguments.json:
        print_json(results)


def add_predict(commands: Any) -> None:
    """`lightune predict`."""
    add = add_command(commands, "predict", _predict, "label a file or standard input").add_argument
    add("run", metavar="RUN", help="folder of a run, or its adapter folder")
    add("data", nargs="?", default="-", metavar="DATA", help="whatever `run` reads; - or nothing: stdin")
    add("-o", "--output", metavar="FILE", default="-", help="its ending says the format; -: standard output")
    add("--text", metavar="COLUMN|TEMPLATE", help="default: as in training")
    add("--pair", metavar="COLUMN|TEMPLATE", help="the second text of a pair; default: as in training")
    add_loading(add)


def _predict(arguments: argparse.Namespace) -> None:
    from lightune.use.files import predict_file

    if arguments.json and arguments.output == "-":
        raise UserError("--json and the answers cannot both be on standard output. Name a file with -o.")
    summary = predict_file(**options_of(arguments, "offline"), say=partial(print, file=sys.stderr))
    if summary["empty"]:
        print(f"{summary['empty']:,} of {summary['rows']:,} rows lack a text", file=sys.stderr)
    if arguments.json:
        print_json(summary)


def add_explain(commands: Any) -> None:
    """`lightune explain`."""
    summary = "show how much each word of a text spoke for its label"
    command = add_command(commands, "explain", _explain, summary)
    command.set_defaults(late=("texts", True))
    add = command.add_argument
    add("run", metavar="RUN", help="folder of a run, or its adapter folder")
    add("texts", nargs="*", metavar="TEXT", help="a text each; without one standard input, one text a line")
    add("--label", metavar="LABEL", help="what the words speak for or against (default: the predicted label)")
    add_loading(add)


def _explain(arguments: argparse.Namespace) -> None:
    from lightune.use.explaining import explain_texts

    options = options_of(arguments, "offline")
    found = explain_texts(**options, journal=journal_for(arguments), is_shown=not arguments.json)
    if arguments.json:
        print_json(found)


def add_report(commands: Any) -> None:
    """`lightune report`."""
    summary = "make the page of a finished run again, or one that compares two runs"
    command = add_command(commands, "report", _report, summary)
    command.set_defaults(late=("other", False))
    add = command.add_argument
    add("run", metavar="RUN", help="folder of a run")
    add("other", nargs="?", metavar="RUN_B", help="another run, to compare the first one with")
    add("-o", "--output", metavar="FILE", help="default: RUN/report.html; of two runs report-vs-RUN_B.html here")
    add("--show-texts", action="store_true", help="the rows on the page with their texts, from the run's data")
    add("--explain", type=int, metavar="N", help="with --show-texts: mark the words of N rows (default: 8; 0: none)")
    add("--base", metavar="MODEL", help="where the base model is, if it moved and words are to be marked")
    add("--offline", action="store_true", help="no request leaves this machine")


def _report(arguments: argparse.Namespace) -> None:
    from lightune.journal import Journal
    from lightune.reporting import make_report

    made = make_report(**options_of(arguments), journal=Journal(sys.stderr))
    if arguments.json:
        print_json(made)
    else:
        print_text(made["page"])
