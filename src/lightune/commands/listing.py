"""The commands that list what there is."""

from __future__ import annotations

import argparse
from typing import Any

from lightune.commands.common import add_command, print_json, print_rows, print_text


def add_recipes(commands: Any) -> None:
    """`lightune recipes`."""
    add_command(commands, "recipes", _recipes, "list the recipes that come with lightune")


def _recipes(arguments: argparse.Namespace) -> None:
    from lightune.settings import load_recipe, shipped_recipes

    rows = []
    for name, path in shipped_recipes().items():
        recipe = load_recipe(name).recipe
        about = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        rows.append({"name": name, "model": recipe.model, "data": recipe.data.source, "about": about})
    print_rows(arguments, rows)


def add_methods(commands: Any) -> None:
    """`lightune methods`."""
    add_command(commands, "methods", _methods, "list the fine-tuning methods and their options")


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
    print_rows(arguments, rows)


def add_metrics(commands: Any) -> None:
    """`lightune metrics`."""
    add_command(commands, "metrics", _metrics, "list the metrics, their range and when they apply")


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
    print_rows(arguments, rows)


def add_baselines(commands: Any) -> None:
    """`lightune baselines`."""
    add_command(commands, "baselines", _baselines, "list what a tuned classifier is compared with")


def _baselines(arguments: argparse.Namespace) -> None:
    from lightune.evidence.baselines import BASELINES

    print_rows(arguments, [{"name": name, "what": row.summary} for name, row in BASELINES.items()])


def add_env(commands: Any) -> None:
    """`lightune env`."""
    add_command(commands, "env", _env, "show versions, the device and why it was chosen")


def _env(arguments: argparse.Namespace) -> None:
    from lightune.hardware import choose_hardware, environment

    values = environment(choose_hardware())
    if arguments.json:
        print_json(values)
        return
    from lightune.recipe import flatten

    print_text("\n".join(f"{key:32} {value}" for key, value in flatten(values).items()))
