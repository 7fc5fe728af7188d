"""Words to calls. Every heavy import waits until a command is chosen: `lightune --help` imports no torch."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any, NoReturn

from lightune import __version__
from lightune.commands.common import drop_output, takes_all_letters
from lightune.commands.data import add_check
from lightune.commands.listing import add_baselines, add_env, add_methods, add_metrics, add_recipes
from lightune.commands.training import add_compare, add_run, add_tune
from lightune.commands.using import add_evaluate, add_explain, add_predict, add_report
from lightune.errors import LightuneError, near_match
from lightune.legible import printable

EXAMPLES = """examples:
  lightune run                               real weights, real reviews, nothing to download
  lightune run reviews.csv                   your own data; columns are found, choices are printed
  lightune run amazon-distilbert --dry-run   what a recipe will cost
  lightune predict runs/reviews-lora new.csv -o answers.csv
"""


class Parser(argparse.ArgumentParser):
    """argparse, with the options a user may have meant."""

    def error(self, message: str) -> NoReturn:
        """One line, exit 2."""
        unknown = message.startswith("unrecognized") or "invalid choice" in message
        words = message.split() if unknown else []
        wrong = next((word.strip("':") for word in words if word.startswith(("--", "'"))), "")
        self.exit(2, f"{self.prog}: {message}.{near_match(wrong, self._words())} See {self.prog} --help\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but what may be left out, such as texts, may also come after options."""
        parsed, rest = self.parse_known_args(args, namespace)
        late, many = getattr(parsed, "late", ("", False))
        is_free = late and not getattr(parsed, late) and (many or len(rest) == 1)
        if rest and is_free and not any(word.startswith("-") for word in rest):
            setattr(parsed, late, rest if many else rest[0])
        elif rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return parsed

    def _words(self) -> set[str]:
        """Every command and option, those of the commands included."""
        words = {text for action in self._actions for text in action.option_strings}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                words |= {word for parser in action.choices.values() for word in parser._words()} | {*action.choices}
        return words


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; docs/cli.md is generated from it."""
    parser = Parser(
        prog="lightune",
        description="Lightweight fine-tuning of foundation models for text classification.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lightune {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for add in (
        add_run,
        add_tune,
        add_compare,
        add_check,
        add_evaluate,
        add_predict,
        add_explain,
        add_report,
        add_recipes,
        add_methods,
        add_metrics,
        add_baselines,
        add_env,
    ):
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or the exit code of what went wrong (2: the input, 3: a gate said no)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and not takes_all_letters(stream):
            stream.reconfigure(errors="replace")  # a terminal without … or → shows ? instead of failing
    arguments = build_parser().parse_args(argv)
    from lightune.libraries import settle_libraries, silence_known_warnings

    settle_libraries(offline=getattr(arguments, "offline", False))
    silence_known_warnings()
    if argv is None:  # the command line, not a caller in Python, whose signals are his own
        signal.signal(signal.SIGTERM, _end)
    try:
        arguments.call(arguments)
    except LightuneError as error:
        print(f"lightune: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        goes_on = getattr(arguments, "goes_on", False)
        left = "the same command goes on from here" if goes_on else "no run was published and no file replaced"
        print(f"lightune: interrupted; {left}", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
    except BrokenPipeError:
        drop_output()
        return 141
    return 0


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends as Ctrl-C does: half-written files and locks are let go of."""


def _end(number: int, frame: object) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main())
