"""The cells of a comparison: which recipes are run, and what they differ in."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from lightune.errors import UserError
from lightune.model import methods
from lightune.model.methods import METHODS
from lightune.recipe import Checked, Recipe, check_recipe, parse_setting
from lightune.records import Splits

ALL = "all"
DEFAULT_METHODS = ("lora", "bitfit", "ia3", "head", "full")
SHORT: dict[str, tuple[str, dict[str, Any]]] = {  # names of the literature for a method with an option
    "dora": ("lora", {"use_dora": True}),
    "rslora": ("lora", {"use_rslora": True}),
    "pissa": ("lora", {"init": "pissa"}),
    "olora": ("lora", {"init": "olora"}),
}
OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")
MOST_CELLS = 500
LONG_NAME = 80  # letters of a cell's name; what is longer is told apart by a number

Listed = str | Iterable[Any] | None


@dataclass(frozen=True)
class Asked:
    """What is compared, as it was asked for, and how: trainings of each, and trials of a search for each recipe."""

    methods: tuple[str, ...]
    models: tuple[str, ...]
    sizes: tuple[int | Literal["all"], ...]
    seeds: int = 1
    tune: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """As values of JSON."""
        values = {"methods": [*self.methods], "models": [*self.models], "sizes": [*self.sizes]}
        return {f"compare.{key}": value for key, value in (values | {"seeds": self.seeds, "tune": self.tune}).items()}


@dataclass(frozen=True)
class Cell:
    """One recipe of a comparison, and what the others may differ in; name: of its files.

    is_baselines: the run that trains nothing and asks what there is to beat.
    """

    name: str
    method: str
    model: str
    size: int
    checked: Checked
    is_baselines: bool = False


def read_asked(
    recipe: Recipe, methods_: Listed, models: Listed, sizes: Listed, seeds: int | None, tune: int | None
) -> Asked:
    """What was typed, checked: lists, or texts with commas; nothing: the recipe's own, or well-known methods.

    UserError for a method, an option or a size that there is not, and for a number that is none.
    """
    is_of_methods = methods_ is not None or (models is None and sizes is None)
    names = _listed("methods", methods_, DEFAULT_METHODS if is_of_methods else (recipe.method.name,))
    if names == (ALL,):
        names = tuple(METHODS)
    for name in names:
        read_method(name, recipe)
    numbers = tuple(_size(size) for size in _listed("sizes", sizes, (ALL,)))
    return Asked(
        names,
        _listed("models", models, (recipe.model,)),
        tuple(sorted(numbers, key=lambda size: float("inf") if size == ALL else size)),
        _count("seeds", recipe.seeds if seeds is None else seeds, 1),
        _count("tune", tune or 0, 0),
    )


def _listed(what: str, given: Listed, otherwise: Sequence[str]) -> tuple[str, ...]:
    if given is None:
        return tuple(otherwise)
    items = OUTSIDE_BRACKETS.split(given) if isinstance(given, str) else given
    found = [str(item).strip() for item in items]
    if not found or not all(found):
        raise UserError(f"{what} = {given!r}: a name is missing. Separate them with commas, and nothing else.")
    if twice := [name for name, n in Counter(found).items() if n > 1]:
        raise UserError(f"{what} = {given!r}: {twice[0]} is there twice.")
    return tuple(found)


def _size(text: str) -> int | Literal["all"]:
    if text == ALL:
        return "all"
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < 2:
        raise UserError(
            f"sizes: {text!r}: give numbers of training rows from 2 on, or all, such as 100,300,1000,all."
        )
    return int(text)


def _count(what: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10_000:
        raise UserError(f"{what} = {value!r}: give a whole number from {least} on.")
    return value


def read_method(text: str, recipe: Recipe) -> tuple[str, dict[str, Any]]:
    """("lora", {"rank": 4}) for "lora:rank=4", with the recipe's own options where that is its method.

    UserError for a method or an option that there is not.
    """
    head, *written = text.split(":")
    name, options = SHORT.get(head, (head, {}))
    if head not in SHORT and head not in METHODS:
        try:
            methods.options(head)
        except UserError as error:
            raise UserError(f"methods: {error} Short for LoRA with an option: {', '.join(SHORT)}.") from None
    own = recipe.method.options if name == recipe.method.name else {}
    given = {**own, **options, **dict(parse_setting(each) for each in written)}
    methods.check_options(name, given)
    return name, given


def make_cells(checked: Checked, splits: Splits, asked: Asked) -> list[Cell]:
    """Every method with every model on every number of rows, and for each number what there is to beat.

    UserError for more rows than there are, and for more cells than anybody waits for.
    """
    n_train = splits.asked["train"]
    sizes = [n_train if size == ALL else int(size) for size in asked.sizes]
    if too_many := [size for size in sizes if size > n_train]:
        raise UserError(f"sizes: {too_many[0]}: there are {n_train:,} training rows. Ask for fewer, or for all.")
    if len(asked.methods) * len(asked.models) * len(sizes) > MOST_CELLS:
        raise UserError(f"compare: more than {MOST_CELLS} runs. Name fewer methods, models or sizes.")
    cells: list[Cell] = []
    for size in dict.fromkeys(sizes):
        if checked.recipe.evidence.baselines:
            recipe = _baselines_recipe(checked.recipe, splits, asked.models[0], size)
            of_size = Checked(recipe, checked.origins, checked.name)
            name = _name([("baselines", True), (str(size), len(sizes) > 1)])
            cells.append(Cell(name, "", asked.models[0], size, of_size, is_baselines=True))
        for model in asked.models:
            for method in asked.methods:
                recipe = _recipe(checked, splits, method, model, size, asked)
                parts = [(method, len(asked.methods) > 1), (_short(model), len(asked.models) > 1)]
                name = _name([*parts, (str(size), len(sizes) > 1)]) or _name([(method, True)])
                of_cell = Checked(recipe, checked.origins, checked.name, checked.search)
                cells.append(Cell(name, method, model, size, of_cell))
    if twice := [name for name, n in Counter(cell.name for cell in cells).items() if n > 1]:
        raise UserError(f"compare: two runs would be called {twice[0]!r}. Name models and methods that differ more.")
    return cells


def _name(parts: Iterable[tuple[str, bool]]) -> str:
    name = re.sub(r"[^\w.=-]+", "-", "-".join(text for text, is_told in parts if is_told))
    return name if len(name) <= LONG_NAME else f"{name[:LONG_NAME]}-{zlib.crc32(name.encode()):08x}"


def _short(model: str) -> str:
    return PurePath(model.partition("@")[0]).name or model


def _recipe(checked: Checked, splits: Splits, method: str, model: str, size: int, asked: Asked) -> Recipe:
    """The recipe of a cell: the same but for what is compared, and for what belongs to that.

    The rate is that of the recipe only for its own method and model; fewer rows are read whole, and as often as suits
    them. What was typed stays.
    """
    recipe, is_typed = checked.recipe, {key for key, origin in checked.origins.items() if origin == "command line"}
    name, options = read_method(method, recipe)
    is_own = name == recipe.method.name and model == recipe.model
    train: dict[str, Any] = {}
    if not is_own and "train.learning_rate" not in is_typed:
        train["learning_rate"] = "auto"
    if not METHODS[name].by_layers:
        train["layers"] = "all"
    if size < splits.asked["train"]:
        train |= {key: "auto" for key in ("epochs", "max_tokens") if f"train.{key}" not in is_typed}
    return _changed(
        recipe,
        splits,
        size,
        {
            "model": model,
            "seeds": asked.seeds,
            "method": {"name": name, **options},
            "train": recipe.train.model_dump() | train,
            "evidence": recipe.evidence.model_dump() | {"baselines": [], "doctor": False, "require": []},
        },
    )


def _baselines_recipe(recipe: Recipe, splits: Splits, model: str, size: int) -> Recipe:
    """The recipe that trains nothing: its run asks the baselines, and the head as it is made."""
    train = recipe.train.model_dump() | {"epochs": 0.0, "layers": "all"}
    evidence = recipe.evidence.model_dump() | {"doctor": False, "require": []}
    values: dict[str, Any] = {"method": {"name": "head"}, "train": train, "evidence": evidence}
    values |= {"model": model, "time_budget": None, "seeds": 1}
    return _changed(recipe, splits, size, values)


def _changed(recipe: Recipe, splits: Splits, size: int, values: Mapping[str, Any]) -> Recipe:
    sizes = {f"{name}_rows": splits.asked[name] for name in ("dev", "test")} | {"train_rows": size}
    data = recipe.data.model_dump() | sizes
    return check_recipe(recipe.model_dump() | {"data": data, "trackers": []} | dict(values))
