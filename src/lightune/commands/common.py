"""What commands share: how one is added, the options that several have, and how they print."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from lightune.errors import GateError

if TYPE_CHECKING:
    from lightune.journal import Journal

TASK_HELP = "single_label, ordinal (grades), multi_label or regression (numbers); default: as the label looks"
NOT_OPTIONS = ("call", "json", "late", "goes_on")  # what a parser sets beside the options of its command


def add_command(commands: Any, name: str, call: Callable[[argparse.Namespace], None], summary: str) -> Any:
    """The parser of a new command, which calls `call`."""
    parser = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.set_defaults(call=call)
    parser.add_argument("--json", action="store_true", help="only JSON on standard output")
    return parser


def add_job(add: Callable[..., Any]) -> None:
    """What says which recipe, on which data."""
    add("target", nargs="?", metavar="RECIPE|DATA", help="a recipe's name or file, or labelled data; none: IMDB")
    add("--test", metavar="FILE", help="separate test data; without it a part of DATA is held out")
    add("--text", metavar="COLUMN|TEMPLATE", help='what to classify, e.g. review or "{title}. {content}"')
    add("--pair", metavar="COLUMN|TEMPLATE", help="the second text, where two are classified together")
    add("--label", metavar="COLUMN", help="the column that holds the class, or the number")
    add("--task", metavar="TASK", help=TASK_HELP)
    add("--preset", metavar="NAME", help="fast (two minutes), balanced or best (hours on a CPU)")
    add("--no-baselines", action="store_true", help="nothing to compare with but the untuned head")
    add("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings", help="override the recipe")
    add("--offline", action="store_true", help="no request leaves this machine")


def add_loading(add: Callable[..., Any]) -> None:
    """What says how a classifier is loaded and its data read."""
    add("--encoding", help="of text files that are not UTF-8, e.g. cp1252")
    add("--delimiter", help="of CSV files, where it is not found by itself")
    add("--base", metavar="MODEL", help="where the base model is, if it moved")
    add("--device", metavar="DEVICE", default="auto", help="auto, cpu, cuda or mps")
    add("--precision", metavar="BITS", default="auto", help="auto (the run's, where it is fast), fp32, bf16 or fp16")
    add("--offline", action="store_true", help="no request leaves this machine")


def options_of(arguments: argparse.Namespace, *but: str) -> dict[str, Any]:
    """The options by the names that the functions in Python know them by; but: those that they do not take."""
    return {name: value for name, value in vars(arguments).items() if name not in (*NOT_OPTIONS, *but)}


def journal_for(arguments: argparse.Namespace) -> Journal:
    """What people read: on standard output, or beside it where that is for JSON."""
    from lightune.journal import Journal

    return Journal(sys.stderr if arguments.json else sys.stdout)


def print_json(values: Any) -> None:
    """Values as JSON on standard output."""
    print_text(json.dumps(values, indent=2, ensure_ascii=not takes_all_letters(sys.stdout), allow_nan=False))


def print_text(text: str) -> None:
    """A text on standard output. GateError if it cannot be written."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise GateError(f"standard output: cannot be written ({error.strerror}).") from None


def print_rows(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """A list of things: JSON, or a line each with its details below."""
    if arguments.json:
        print_json(rows)
        return
    width = max(len(row["name"]) for row in rows) + 2
    lines = []
    for row in rows:
        name, *rest = row.items()
        inner = [f"{key}: {value}" for key, value in rest if not isinstance(value, dict)]
        lines.append(f"{name[1]:{width}}{'; '.join(inner)}")
        for _, value in rest:
            details = value.items() if isinstance(value, dict) else ()
            lines += [f"{'':{width}}  {key}: {text}" for key, text in details]
    print_text("\n".join(lines))


def drop_output() -> None:
    """Sends what is left in the buffer nowhere: Python would try it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def takes_all_letters(stream: TextIO) -> bool:
    """Whether a stream can hold any letter."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"
