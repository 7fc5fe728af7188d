"""Words to calls. Every heavy import waits until a command is chosen: `lightune --help` imports no torch."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from lightune import __version__
from lightune.errors import GateError, LightuneError, UserError, near_match
from lightune.legible import printable

if TYPE_CHECKING:
    from lightune.journal import Journal

EXAMPLES = """examples:
  lightune run                               real weights, real reviews, nothing to download
  lightune run reviews.csv                   your own data; columns are found, choices are printed
  lightune run amazon-distilbert --dry-run   what a recipe will cost
  lightune predict runs/reviews-lora new.csv -o answers.csv
"""

TASK_HELP = "single_label, ordinal (grades), multi_label or regression (numbers); default: as the label looks"


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
        _add_run,
        _add_tune,
        _add_compare,
        _add_check,
        _add_evaluate,
        _add_predict,
        _add_explain,
        _add_report,
        _add_recipes,
        _add_methods,
        _add_metrics,
        _add_baselines,
        _add_env,
    ):
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or the exit code of what went wrong (2: the input, 3: a gate said no)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and not _takes_all_letters(stream):
            stream.reconfigure(errors="replace")  # a terminal without … or → shows ? instead of failing
    if argv is None:  # the command line, not a caller in Python, whose signals are his own
        signal.signal(signal.SIGTERM, _end)
    arguments = build_parser().parse_args(argv)
    from lightune.libraries import settle_libraries, silence_known_warnings

    settle_libraries(offline=getattr(arguments, "offline", False))
    silence_known_warnings()
    try:
        arguments.call(arguments)
    except LightuneError as error:
        print(f"lightune: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        goes_on = getattr(arguments, "goes_on", False)
        left = "the same command goes on from here" if goes_on else "no run was published and no file replaced"
        print(f"lightune: interrupted; {left}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _drop_output()
        return 141
    return 0


def _end(number: int, frame: object) -> NoReturn:
    """Ends as an error does, so that half-written files and locks are let go of."""
    raise SystemExit(128 + number)


def _command(commands: Any, name: str, call: Callable[[argparse.Namespace], None], summary: str) -> Any:
    parser = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.set_defaults(call=call)
    parser.add_argument("--json", action="store_true", help="only JSON on standard output")
    return parser


def _add_job(add: Callable[..., Any]) -> None:
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


def _add_run(commands: Any) -> None:
    add = _command(commands, "run", _run, "evaluate before, fine-tune, evaluate after, prove and report").add_argument
    _add_job(add)
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


def _add_tune(commands: Any) -> None:
    summary = "search for a better recipe, and say whether it is one"
    command = _command(commands, "tune", _tune, summary)
    command.set_defaults(goes_on=True)
    add = command.add_argument
    _add_job(add)
    add("--trials", type=int, metavar="N", help="recipes to try (default: 12)")
    add("--time-budget", metavar="TIME", help="30m, 2h: for the search and its two runs")
    add("--seed", type=int, help="of the split and of the whole search")
    add("--no-runs", action="store_true", help="end with best.toml: no run of it, no verdict")
    add("--storage", metavar="URL", help="Optuna storage (default: search.db in the folder)")
    add(
        "-o",
        "--output",
        metavar="FOLDER",
        help="of the search; one that was cut off goes on (default: runs/NAME-search)",
    )


def _add_compare(commands: Any) -> None:
    summary = "the same job by several methods, with several models or on several numbers of rows"
    command = _command(commands, "compare", _compare, summary)
    command.set_defaults(goes_on=True)
    add = command.add_argument
    _add_job(add)
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


def _add_check(commands: Any) -> None:
    add = _command(commands, "check", _check, "find what is wrong with labelled data").add_argument
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


def _add_evaluate(commands: Any) -> None:
    add = _command(commands, "evaluate", _evaluate, "score a finished run on other labelled data").add_argument
    add("run", metavar="RUN", help="folder of a run, or its adapter folder")
    add("--data", metavar="DATA", required=True, help="labelled data")
    add("--text", metavar="COLUMN|TEMPLATE", help="default: as in training")
    add("--pair", metavar="COLUMN|TEMPLATE", help="the second text of a pair; default: as in training")
    add("--label", metavar="COLUMN", help="the column that holds the class, or the number")
    _add_loading(add)


def _add_predict(commands: Any) -> None:
    add = _command(commands, "predict", _predict, "label a file or standard input").add_argument
    add("run", metavar="RUN", help="folder of a run, or its adapter folder")
    add("data", nargs="?", default="-", metavar="DATA", help="whatever `run` reads; - or nothing: stdin")
    add("-o", "--output", metavar="FILE", default="-", help="its ending says the format; -: standard output")
    add("--text", metavar="COLUMN|TEMPLATE", help="default: as in training")
    add("--pair", metavar="COLUMN|TEMPLATE", help="the second text of a pair; default: as in training")
    _add_loading(add)


def _add_explain(commands: Any) -> None:
    summary = "show how much each word of a text spoke for its label"
    command = _command(commands, "explain", _explain, summary)
    command.set_defaults(late=("texts", True))
    add = command.add_argument
    add("run", metavar="RUN", help="folder of a run, or its adapter folder")
    add("texts", nargs="*", metavar="TEXT", help="a text each; without one standard input, one text a line")
    add("--label", metavar="LABEL", help="what the words speak for or against (default: the predicted label)")
    _add_loading(add)


def _add_report(commands: Any) -> None:
    summary = "make the page of a finished run again, or one that compares two runs"
    command = _command(commands, "report", _report, summary)
    command.set_defaults(late=("other", False))
    add = command.add_argument
    add("run", metavar="RUN", help="folder of a run")
    add("other", nargs="?", metavar="RUN_B", help="another run, to compare the first one with")
    add("-o", "--output", metavar="FILE", help="default: RUN/report.html; of two runs report-vs-RUN_B.html here")
    add("--show-texts", action="store_true", help="the rows on the page with their texts, from the run's data")
    add("--explain", type=int, metavar="N", help="with --show-texts: mark the words of N rows (default: 8; 0: none)")
    add("--base", metavar="MODEL", help="where the base model is, if it moved and words are to be marked")
    add("--offline", action="store_true", help="no request leaves this machine")


def _add_loading(add: Callable[..., Any]) -> None:
    add("--encoding", help="of text files that are not UTF-8, e.g. cp1252")
    add("--delimiter", help="of CSV files, where it is not found by itself")
    add("--base", metavar="MODEL", help="where the base model is, if it moved")
    add("--device", metavar="DEVICE", default="auto", help="auto, cpu, cuda or mps")
    add("--precision", metavar="BITS", default="auto", help="auto (the run's, where it is fast), fp32, bf16 or fp16")
    add("--offline", action="store_true", help="no request leaves this machine")


def _add_recipes(commands: Any) -> None:
    _command(commands, "recipes", _recipes, "list the recipes that come with lightune")


def _add_methods(commands: Any) -> None:
    _command(commands, "methods", _methods, "list the fine-tuning methods and their options")


def _add_metrics(commands: Any) -> None:
    _command(commands, "metrics", _metrics, "list the metrics, their range and when they apply")


def _add_baselines(commands: Any) -> None:
    _command(commands, "baselines", _baselines, "list what a tuned classifier is compared with")


def _add_env(commands: Any) -> None:
    _command(commands, "env", _env, "show versions, the device and why it was chosen")


def _journal(arguments: argparse.Namespace) -> Journal:
    from lightune.journal import Journal

    return Journal(sys.stderr if arguments.json else sys.stdout)


def _print_json(values: Any) -> None:
    _print(json.dumps(values, indent=2, ensure_ascii=not _takes_all_letters(sys.stdout), allow_nan=False))


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise GateError(f"standard output: cannot be written ({error.strerror}).") from None


def _drop_output() -> None:
    """Sends what is left in the buffer nowhere: Python would try it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _takes_all_letters(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def _run(arguments: argparse.Namespace) -> None:
    from lightune.run import run

    names = [
        "target",
        "test",
        "text",
        "pair",
        "label",
        "task",
        "seed",
        "seeds",
        "settings",
        "preset",
        "time_budget",
        "require",
    ]
    names += ["no_baselines", "output", "overwrite", "offline", "dry_run"]
    result = run(journal=_journal(arguments), **{name: getattr(arguments, name) for name in names})
    if arguments.json:
        _print_json(result.results)


def _tune(arguments: argparse.Namespace) -> None:
    from lightune.tune import tune

    names = ["target", "trials", "test", "text", "pair", "label", "task", "seed", "settings", "preset"]
    names += ["time_budget", "no_baselines", "no_runs", "storage", "output", "offline"]
    result = tune(journal=_journal(arguments), **{name: getattr(arguments, name) for name in names})
    if arguments.json:
        _print_json(result.results)


def _compare(arguments: argparse.Namespace) -> None:
    from lightune.compare import compare

    names = ["target", "methods", "models", "sizes", "seeds", "tune", "test", "text", "pair", "label", "task", "seed"]
    names += ["settings", "preset", "time_budget", "no_baselines", "output", "offline"]
    result = compare(journal=_journal(arguments), **{name: getattr(arguments, name) for name in names})
    if arguments.json:
        _print_json(result.results)


def _check(arguments: argparse.Namespace) -> None:
    from lightune.checkup import check

    names = [
        "test",
        "text",
        "pair",
        "label",
        "task",
        "group",
        "only",
        "model",
        "fix",
        "show_texts",
        "output",
        "encoding",
        "delimiter",
        "offline",
        "seed",
    ]
    options = {name: getattr(arguments, name) for name in names}
    diagnosis = check(arguments.data, journal=_journal(arguments), **options)
    if arguments.json:
        _print_json(diagnosis.model_dump())
    if arguments.strict and diagnosis.worst() == "error":
        raise GateError(f"{arguments.data}: has errors, see above.")


def _evaluate(arguments: argparse.Namespace) -> None:
    from lightune.use.files import evaluate_file

    journal = _journal(arguments)
    results = evaluate_file(
        arguments.run,
        arguments.data,
        text=arguments.text,
        pair=arguments.pair,
        label=arguments.label,
        encoding=arguments.encoding,
        delimiter=arguments.delimiter,
        base=arguments.base,
        device=arguments.device,
        precision=arguments.precision,
        journal=journal,
    )
    if arguments.json:
        _print_json(results)


def _predict(arguments: argparse.Namespace) -> None:
    from lightune.use.files import predict_file

    if arguments.json and arguments.output == "-":
        raise UserError("--json and the answers cannot both be on standard output. Name a file with -o.")
    summary = predict_file(
        arguments.run,
        arguments.data,
        arguments.output,
        text=arguments.text,
        pair=arguments.pair,
        encoding=arguments.encoding,
        delimiter=arguments.delimiter,
        base=arguments.base,
        device=arguments.device,
        precision=arguments.precision,
        say=partial(print, file=sys.stderr),
    )
    if summary["empty"]:
        print(f"{summary['empty']:,} of {summary['rows']:,} rows lack a text", file=sys.stderr)
    if arguments.json:
        _print_json(summary)


def _explain(arguments: argparse.Namespace) -> None:
    from lightune.use.explaining import explain_texts

    names = ["run", "texts", "label", "encoding", "delimiter", "base", "device", "precision"]
    options = {name: getattr(arguments, name) for name in names}
    found = explain_texts(**options, journal=_journal(arguments), is_shown=not arguments.json)
    if arguments.json:
        _print_json(found)


def _report(arguments: argparse.Namespace) -> None:
    from lightune.journal import Journal
    from lightune.reporting import make_report

    names = ["run", "other", "output", "show_texts", "explain", "base", "offline"]
    made = make_report(**{name: getattr(arguments, name) for name in names}, journal=Journal(sys.stderr))
    if arguments.json:
        _print_json(made)
    else:
        _print(made["page"])


def _recipes(arguments: argparse.Namespace) -> None:
    from lightune.recipe import load_recipe, shipped_recipes

    rows = []
    for name, path in shipped_recipes().items():
        recipe = load_recipe(name).recipe
        about = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        rows.append({"name": name, "model": recipe.model, "data": recipe.data.source, "about": about})
    _print_rows(arguments, rows)


def _methods(arguments: argparse.Namespace) -> None:
    from lightune.model.methods import METHODS, option_help, options, rate_in_words

    rows = [
        {
            "name": name,
            "trains": method.summary,
            "learning_rate": rate_in_words(method),
            "merges": method.mergeable,
            "options": {o: f"{option_help(name)[o]} (default: {p.default})" for o, p in options(name).items()},
        }
        for name, method in METHODS.items()
    ]
    _print_rows(arguments, rows)


def _metrics(arguments: argparse.Namespace) -> None:
    from lightune.evidence.score import TABLES
    from lightune.evidence.value_metrics import GRADE_METRICS

    rows = [
        {
            "name": name,
            "task": task,
            "what": metric.summary,
            "better": metric.direction,
            "range": f"{metric.low:g} to {metric.high:g}",
            "applies": metric.applies,
        }
        for task, table in TABLES.items()
        for name, metric in table.items()
        if task != "ordinal" or name in GRADE_METRICS  # those of classes are told already
    ]
    _print_rows(arguments, rows)


def _baselines(arguments: argparse.Namespace) -> None:
    from lightune.evidence.baselines import BASELINES

    _print_rows(arguments, [{"name": name, "what": row.summary} for name, row in BASELINES.items()])


def _env(arguments: argparse.Namespace) -> None:
    from lightune.hardware import choose_hardware, environment

    values = environment(choose_hardware())
    if arguments.json:
        _print_json(values)
        return
    from lightune.recipe import flatten

    _print("\n".join(f"{key:32} {value}" for key, value in flatten(values).items()))


def _print_rows(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """A list of things: JSON, or a line each with its details below."""
    if arguments.json:
        _print_json(rows)
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
    _print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
