"""From what the user typed to a checked recipe: a recipe's name or file or data, a preset, options, --set KEY=VALUE.

Reads TOML; knows nothing of the clock, the network or the processor, and imports no torch.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from lightune.errors import UserError, near_match
from lightune.recipe import (
    Checked,
    MethodRecipe,
    Recipe,
    check_recipe,
    check_search,
    flatten,
    leaves,
    put,
    section_of,
)

DEFAULT_RECIPE = "imdb-minilm"

LONGEST_NAME = 4096  # of a path, on the systems we know

Settings = Iterable[str] | Mapping[str, Any]

# what a preset sets; what is set by hand goes before it
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {
        "time_budget": "2m",
        "data.train_rows": "auto",
        "data.dev_rows": "auto",
        "data.test_rows": "auto",
        "data.max_tokens": 128,
        "train.layers": "auto",
        "train.max_tokens": "auto",
    },
    "balanced": {},
    "best": {
        "data.train_rows": "all",
        "data.max_tokens": "most",
        "train.max_tokens": "auto",
        "train.layers": "all",
        "train.epochs": 3.0,
        "train.evaluations": 2,
    },
}


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of the recipes that come with the package."""
    folder = Path(str(resources.files("lightune") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_recipe(
    target: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    settings: Settings = (),
    preset: str | None = None,
    *,
    searches: str = "",
) -> Checked:
    """The checked recipe for what the user typed: nothing, a recipe's name or file, or a data source.

    overrides: dotted key -> value from the named options (None is skipped); settings: "key=value" texts, or
    a dictionary of the same; preset: a row of PRESETS, which goes before the recipe's own values. searches: what
    would read settings of [search], where nothing does; those of a recipe's file wait there.
    Raises UserError for an unreadable file, an unknown key or a value out of range.
    """
    name, values = _start(target)
    if isinstance(values.get("method"), str):
        values["method"] = {"name": values["method"]}
    origins = dict.fromkeys(flatten(values), f"recipe {name}")
    for key, value in _preset(preset).items():
        put(values, key, value)
        origins[key] = f"preset {preset}"
    given = {key: _plain(value) for key, value in (overrides or {}).items() if value is not None}
    searched: dict[str, Any] = {}
    for key, value in [*given.items(), *_pairs(settings)]:
        key = _full_key(key, values)
        if key.startswith("search."):
            if searches:
                raise UserError(f"{key}: nothing is searched here. {searches}")
            searched[key.removeprefix("search.")] = value
            continue
        if key == "method.name" and values["method"].get("name", MethodRecipe().name) != value:
            values["method"].clear()  # the options belong to the method that is being replaced
        put(values, key, value)
        origins[key] = "command line"
    written = values.pop("search", {})
    search = check_search(leaves(written) | searched if isinstance(written, Mapping) else written)
    recipe = check_recipe(values)
    return Checked(recipe, {key: origins.get(key, "default") for key in flatten(recipe.model_dump())}, name, search)


def _plain(value: Any) -> Any:
    """A value of Python's own for one of NumPy's."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


def parse_setting(text: str) -> tuple[str, Any]:
    """("train.epochs", 2) for "train.epochs=2"; the value is TOML, and a bare word is a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text}: expected key=value, for example --set train.learning_rate=5e-4.")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 5,000 brackets
        raise UserError(f"--set {key}: its value cannot be read ({error}).") from None
    if len(parsed) > 1:
        raise UserError(f"--set {text}: more than one setting. Give each a --set of its own.")
    return key.strip(), parsed["value"]


def name_of(target: object) -> str | None:
    """What a function in Python was given as its recipe or data, as one would type it. UserError if nobody could."""
    if target is not None and not isinstance(target, str | Path):
        raise UserError(f"the data is a {type(target).__name__}: give the name of a recipe, a file or a data set.")
    return None if target is None else str(target)


def _preset(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    if name not in PRESETS:
        raise UserError(f"preset {name!r}: not known.{near_match(name, PRESETS)} Choose from {', '.join(PRESETS)}.")
    return PRESETS[name]


def _pairs(settings: Settings) -> Iterable[tuple[str, Any]]:
    if isinstance(settings, Mapping):
        return {key: _plain(value) for key, value in leaves(settings).items()}.items()
    if isinstance(settings, str) or not isinstance(settings, Iterable):
        raise UserError(f"settings = {settings!r}: give a list of 'key=value' texts, or a dictionary.")
    parsed = (parse_setting(str(text)) for text in settings)
    return [pair for key, value in parsed for pair in leaves({key: value}).items()]


def _start(target: str | None) -> tuple[str, dict[str, Any]]:
    recipes = shipped_recipes()
    name = DEFAULT_RECIPE if target is None else target
    if name in recipes:
        return name, _read_toml(recipes[name])
    if name.endswith(".toml"):
        return Path(name).stem, _read_toml(Path(name))
    if len(name) > LONGEST_NAME:
        raise UserError(f"{name[:60]!r}...: longer than any name. Give that of a recipe, a file or a data set.")
    if not name:
        raise UserError("no recipe and no data named: the name is empty. Leave it out for the IMDB reviews.")
    if "/" not in name and not _is_there(name) and (hint := near_match(name, recipes)):
        raise UserError(f"{name!r}: no recipe, file or folder of this name.{hint} See: lightune recipes")
    return _short_name(name), {"data": {"source": name}}


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # longer than any name
        return False


def _short_name(source: str) -> str:
    """ "data/reviews.csv.gz" is reviews, "org/name:config@revision" name, "embedded:imdb" imdb."""
    last = re.split(r"[/\\]", source.removeprefix("embedded:").partition("@")[0].rstrip("/"))[-1]
    return re.sub(r"[^\w-]+", "-", re.split(r"[.:]", last)[0]).strip("-") or "data"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        shipped = ", ".join(shipped_recipes())
        raise UserError(f"{path}: cannot read this recipe ({error}). Shipped recipes: {shipped}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid TOML: {error}. Texts need quotes, tables [brackets].") from None


def _full_key(key: str, values: dict[str, Any]) -> str:
    """`method` is short for method.name, `lora.rank` for method.rank where the method is lora.

    UserError for a table that a recipe does not have, with the tables that have such a key.
    """
    method = values.setdefault("method", {})
    if not isinstance(method, dict):
        raise UserError(f"recipe: method = {method!r}: give its name, or a table with its name and options.")
    first, _, rest = key.partition(".")
    if key == "search":
        raise UserError("--set search: is a table. Set a key of it, such as search.trials or search.train.epochs.")
    if rest and first == "search":
        table, _, option = rest.partition(".")
        if option and table == method.get("name", MethodRecipe().name):
            return f"search.method.{option}"
        return "search.method.name" if rest == "method" else key
    if key in ("method", "method.name"):
        return "method.name"
    if rest and first not in Recipe.model_fields:
        name = str(method.get("name", MethodRecipe().name))
        if first != name:
            raise UserError(
                f"--set {key}: no table '{first}' in a recipe, and the method is '{name}'."
                f"{near_match(first, [*Recipe.model_fields, name])} Set method={first} before it."
            )
        return f"method.{rest}"
    if not rest and first not in Recipe.model_fields:
        tables = {name: section_of(Recipe, name) for name in Recipe.model_fields}
        full = [f"{name}.{first}" for name, table in tables.items() if table and first in table.model_fields]
        hint = f" Did you mean {full[0]}?" if full else near_match(first, Recipe.model_fields)
        raise UserError(f"--set {key}: no such key in a recipe.{hint}")
    return key
