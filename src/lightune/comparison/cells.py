"""The cells of a comparison: which recipes are run, and what they differ in."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from lightune.errors import UserError
from lightune.evidence.baselines import BASELINES
from lightune.model import methods
from lightune.model.methods import METHODS
from lightune.recipe import Checked, Recipe, SearchRecipe, check_recipe, nested
from lightune.records import Splits
from lightune.search.space import check_key, read_space, searchable
from lightune.settings import parse_setting

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
    """What is compared, as it was asked for, and how: trainings of each, and trials of a search for each recipe.

    has_sizes: sizes were typed, so that "all" is every row that there is to train on.
    """

    methods: tuple[str, ...]
    models: tuple[str, ...]
    sizes: tuple[int | Literal["all"], ...]
    seeds: int = 1
    tune: int = 0
    has_sizes: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """As values of JSON."""
        return {
            f"compare.{key}": list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()
        }


@dataclass(frozen=True)
class Cell:
    """One recipe of a comparison, and what the others may differ in; name: of its files.

    is_baselines: a run that trains nothing and asks what there is to beat; checked.search: that of its own recipe.
    """

    name: str
    method: str
    model: str
    size: int
    checked: Checked
    is_baselines: bool = False


def read_asked(
    checked: Checked, methods_: Listed, models: Listed, sizes: Listed, seeds: int | None, tune: int | None
) -> Asked:
    """What was typed, checked: lists, or texts with commas; nothing: the recipe's own, or well-known methods.

    UserError for a method, an option or a size that there is not, for a number that is none, and for a search that
    would change what is compared.
    """
    recipe = checked.recipe
    is_of_methods = methods_ is not None or (models is None and sizes is None)
    names = _listed("methods", methods_, DEFAULT_METHODS if is_of_methods else (recipe.method.name,))
    if names == (ALL,):
        names = tuple(METHODS)
    given = [read_method(name, recipe) for name in names]
    asked = [name for name, _ in given]
    whole = [json.dumps([name, methods.check_options(name, options)], default=str) for name, options in given]
    if twice := next((i for i, each in enumerate(whole) if each in whole[:i]), 0):
        raise UserError(f"methods: {names[whole.index(whole[twice])]} and {names[twice]} are the same.")
    for key, option in (("method.name", "--methods"), ("model", "--models")):
        if tune and key in checked.search.space:
            raise UserError(f"search.{key}: each recipe of a comparison has its own. Name them with {option}.")
    for key in checked.search.space if tune else ():
        if not any(key in searchable([name]) for name in asked):
            check_key(key, asked[:1])  # says so
    numbers = tuple(_size(size) for size in _listed("sizes", sizes, (ALL,)))
    return Asked(
        names,
        _listed("models", models, (recipe.model,)),
        tuple(sorted(numbers, key=lambda size: float("inf") if size == ALL else size)),
        _count("seeds", recipe.seeds if seeds is None else seeds, 1),
        _count("tune", tune or 0, 0),
        sizes is not None,
    )


def _listed(what: str, given: Listed, otherwise: Sequence[str]) -> tuple[str, ...]:
    if given is None:
        return tuple(otherwise)
    items: Any = OUTSIDE_BRACKETS.split(given) if isinstance(given, str) else given
    if isinstance(items, int | PurePath) and not isinstance(items, bool):
        items = [items]
    if isinstance(items, Mapping) or not isinstance(items, Iterable):
        raise UserError(f"{what} = {given!r}: give a list, or a text with commas.")
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
        raise UserError(f"{what} = {value!r}: give a whole number from {least} to 10,000.")
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
    if not all("=" in each for each in written):
        raise UserError(f"methods: {text!r}: write options as in lora:rank=4:alpha=8.")
    if twice := [key for key, n in Counter(each.partition("=")[0] for each in written).items() if n > 1]:
        raise UserError(f"methods: {text!r}: {twice[0]} is there twice.")
    own = recipe.method.options if name == recipe.method.name else {}
    given = {**own, **options, **dict(parse_setting(each) for each in written)}
    methods.check_options(name, given)
    return name, given


def make_cells(checked: Checked, splits: Splits, asked: Asked) -> list[Cell]:
    """Every method with every model on every number of rows, and for each number what there is to beat.

    UserError for more rows than there are, fewer than classes, and for more cells than anybody waits for.
    """
    n_train = splits.asked["train"]
    sizes = [n_train if size == ALL else int(size) for size in asked.sizes]
    if too_many := [size for size in sizes if size > n_train]:
        raise UserError(f"sizes: {too_many[0]}: there are {n_train:,} rows to train on. Ask for fewer, or for all.")
    n_classes = 0 if splits.task == "multi_label" else len(splits.class_names)
    if too_few := [size for size in sizes if size < n_classes]:
        raise UserError(f"sizes: {too_few[0]}: there are {n_classes} classes. Ask for a row of each at least.")
    if len(asked.methods) * len(asked.models) * len(sizes) > MOST_CELLS:
        raise UserError(f"compare: more than {MOST_CELLS} runs. Name fewer methods, models or sizes.")
    cells: list[Cell] = []
    for size in dict.fromkeys(sizes):
        for place, model in enumerate(asked.models):
            if names := _baselines_of(checked.recipe, is_first=not place):
                recipe = _baselines_recipe(checked.recipe, splits, names, model, size)
                of_size = Checked(recipe, checked.origins, checked.name)
                parts = [("baselines", True), (short_name(model), place > 0), (str(size), len(sizes) > 1)]
                cells.append(Cell(_name(parts), "", model, size, of_size, is_baselines=True))
        for model in asked.models:
            for method in asked.methods:
                recipe = _recipe(checked, splits, method, model, size, asked)
                has_method = len(asked.methods) > 1 or len(asked.models) == 1
                parts = [(method, has_method), (short_name(model), len(asked.models) > 1)]
                name = _name([*parts, (str(size), len(sizes) > 1)])
                search = _search(checked.search, recipe, asked.tune)
                of_cell = Checked(recipe, checked.origins, checked.name, search)
                cells.append(Cell(name, method, model, size, of_cell))
    if twice := [name for name, n in Counter(cell.name for cell in cells).items() if n > 1]:
        raise UserError(f"compare: two runs would be called {twice[0]!r}. Name models and methods that differ more.")
    return cells


def _baselines_of(recipe: Recipe, *, is_first: bool) -> list[str]:
    """Those that a model's run asks: the first one's all of them, another's those that read with its network."""
    return [name for name in recipe.evidence.baselines if is_first or BASELINES[name].needs_embeddings]


def _search(search: SearchRecipe, recipe: Recipe, trials: int) -> SearchRecipe:
    """What a cell's search may try, of what was written: what its method has. UserError for what no search can."""
    if not trials:
        return SearchRecipe()
    space = {key: value for key, value in search.space.items() if key in searchable([recipe.method.name])}
    if empty := next((key for key, value in space.items() if isinstance(value, list) and None in value), None):
        raise UserError(f"search.{empty}: a comparison cannot try None. Leave it out.")
    read_space(space, recipe)
    fields = {key: getattr(search, key) for key in SearchRecipe.model_fields}
    if fields["rows"] != "auto" and isinstance(recipe.data.train_rows, int):
        fields["rows"] = min(fields["rows"], recipe.data.train_rows)
    return SearchRecipe(**fields | {"trials": trials} | nested(space))


def _name(parts: Iterable[tuple[str, bool]]) -> str:
    name = re.sub(r"[^\w.=-]+", "-", "-".join(text for text, is_told in parts if is_told))
    return name if len(name) <= LONG_NAME else f"{name[:LONG_NAME]}-{zlib.crc32(name.encode()):08x}"


def short_name(model: str) -> str:
    """The last part of a model's name or path."""
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


def _baselines_recipe(recipe: Recipe, splits: Splits, names: Sequence[str], model: str, size: int) -> Recipe:
    """The recipe that trains nothing: its run asks baselines, and the head as it is made."""
    train = recipe.train.model_dump() | {"epochs": 0.0, "layers": "all"}
    evidence = recipe.evidence.model_dump() | {"doctor": False, "require": [], "baselines": [*names]}
    values: dict[str, Any] = {"method": {"name": "head"}, "train": train, "evidence": evidence}
    values |= {"model": model, "time_budget": None, "seeds": 1}
    return _changed(recipe, splits, size, values)


def _changed(recipe: Recipe, splits: Splits, size: int, values: Mapping[str, Any]) -> Recipe:
    sizes = {f"{name}_rows": splits.asked[name] for name in ("dev", "test")} | {"train_rows": size}
    data = recipe.data.model_dump() | sizes
    return check_recipe(recipe.model_dump() | {"data": data, "trackers": []} | dict(values))
