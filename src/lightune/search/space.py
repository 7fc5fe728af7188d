"""What a search may try: the table [search] of a recipe, checked, and the values that a trial takes from it.

[search]
train.learning_rate = {low = 1e-4, high = 3e-3, log = true}
train.layers = ["all", 2, 4]
method.rank = [4, 8, 16]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lightune.errors import UserError, near_match
from lightune.model import methods
from lightune.recipe import Recipe, SearchRecipe, check_recipe, flatten, nested
from lightune.records import Plan

if TYPE_CHECKING:
    import optuna

TRIALS_A_KEY = 4  # of the default space so many keys are tried as there are trials for
FEWEST_KEYS = 2
SLOWEST, FASTEST = 1 / 4, 2.0  # times the method's own learning rate: few rows forgive a high one that many do not
RANGE = ("low", "high", "log", "step")
DATA_KEYS = ("data.max_tokens", "data.truncation")
SAME_ANSWERS = ("train.memory_tokens", "train.cache", "train.gradient_checkpointing")  # change time and memory only
RATE, EPOCHS, LAYERS = (
    "train.learning_rate",
    "train.epochs",
    "train.layers",
)  # the last not all methods can be kept to
LOOKS = ("train.evaluations", "train.patience")  # when dev rows are looked at, which in a trial the search says


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Any, ...]

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """The value that the sampler wants."""
        by_name = {_name(value): value for value in self.values}
        return by_name[trial.suggest_categorical(key, list(by_name))]

    def as_parameter(self, value: Any) -> Any:
        """What Optuna knows the value as."""
        return _name(value)

    def as_value(self, parameter: Any) -> Any:
        """The value that Optuna knows as this."""
        return next(value for value in self.values if _name(value) == parameter)

    def in_words(self) -> str:
        """As it would be written."""
        return ", ".join("the method's own" if value is None else str(value) for value in self.values)

    def __contains__(self, value: Any) -> bool:
        return _name(value) in map(_name, self.values)


@dataclass(frozen=True)
class Range:
    """A number from low to high, both included; on a logarithmic scale, or in whole steps."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """The value that the sampler wants."""
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return self.as_value(trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log))

    def as_parameter(self, value: Any) -> Any:
        """What Optuna knows the value as."""
        return value

    def as_value(self, parameter: Any) -> Any:
        """The value that Optuna knows as this: with as many digits as one would type."""
        return parameter if self.whole or self.step else min(self.high, max(self.low, float(f"{parameter:.3g}")))

    def in_words(self) -> str:
        """As it would be written."""
        steps = " on a logarithmic scale" if self.log else f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{steps}"

    def __contains__(self, value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        steps = (value - self.low) / self.step if is_number and self.step else 0.0
        on_grid = abs(steps - round(steps)) < 1e-9
        return is_number and on_grid and self.low <= value <= self.high


Space = dict[str, Choices | Range]


def space_as_json(space: Space) -> dict[str, Any]:
    """A space as values of JSON."""
    return {key: asdict(domain) for key, domain in space.items()}


def space_of_json(written: Mapping[str, Any]) -> Space:
    """The space that was written so."""
    return {
        key: Choices(tuple(domain["values"])) if "values" in domain else Range(**domain)
        for key, domain in written.items()
    }


def _name(value: Any) -> Any:
    """A value as Optuna can hold it: lists as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, default=str)


def read_space(written: Mapping[str, Any], recipe: Recipe) -> Space:
    """What [search] says, each value of it checked against what a recipe takes.

    UserError for a key that a recipe lacks or that changes no answer, an empty range, a value out of range, and a
    method that does not take a searched option.
    """
    tried = written.get("method.name")
    names = tried if isinstance(tried, list) and tried else [recipe.method.name]
    for key in written:
        check_key(key, names)
    space = {key: _domain(key, value) for key, value in written.items()}
    for key, domain in space.items():
        for value in domain.values if isinstance(domain, Choices) else (domain.low, domain.high):
            _check_value(key, value, recipe, names)
    return {key: _as_its_kind(key, domain, recipe, names) for key, domain in space.items()}


def _check_name(key: str) -> None:
    """UserError for a key that is neither a field of [search] nor of a recipe."""
    whole, _, end = key.rpartition(".")
    if whole and end in RANGE:
        raise UserError(f"search.{key}: give the range whole, such as search.{whole} = {{low = 1, high = 3}}.")
    if key.split(".")[0] not in Recipe.model_fields:
        full = [each for each in flatten(Recipe().model_dump()) if each.endswith(f".{key}")]
        hint = f" Did you mean 'search.{full[0]}'?" if full else near_match(key, SearchRecipe.model_fields)
        raise UserError(
            f"search.{key}: no such key.{hint} Known: {', '.join(SearchRecipe.model_fields)}, and keys to try."
        )
    known = [*flatten(Recipe().model_dump()), "method"]
    if key not in known and not key.startswith("method."):
        raise UserError(f"search.{key}: no such key in a recipe.{near_match(key, known)}")


def _domain(key: str, written: Any) -> Choices | Range:
    if isinstance(written, list):
        if len(written) < 2 or len({_name(as_whole(value)) for value in written}) < len(written):
            raise UserError(f"search.{key} = {written!r}: give two different values or more.")
        return Choices(tuple(written))
    if not isinstance(written, Mapping):
        raise UserError(
            f"search.{key} = {written!r}: give a list of values, or a range such as "
            f"{{low = 1e-4, high = 1e-2, log = true}}."
        )
    if unknown := set(written) - set(RANGE):
        raise UserError(f"search.{key}: a range has low, high, log and step, not {sorted(unknown)}.")
    low, high, log, step = (written.get(name) for name in RANGE)
    if low is None or high is None:
        raise UserError(f"search.{key} = {dict(written)!r}: a range needs low and high.")
    ends = [end for end in (low, high) if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(ends) < 2:
        raise UserError(
            f"search.{key}: low = {low!r}, high = {high!r}: a range is of numbers. Name others in a list."
        )
    if not ends[0] < ends[1]:
        raise UserError(f"search.{key}: low = {low!r}, high = {high!r}: an empty range. Low must be less than high.")
    if not isinstance(log, bool | None):
        raise UserError(f"search.{key}: log = {log!r}: give true or false.")
    if log and (ends[0] <= 0 or step is not None):
        raise UserError(f"search.{key}: a logarithmic scale needs low above 0, and no step.")
    if step is not None and (isinstance(step, bool) or not isinstance(step, int | float) or not step > 0):
        raise UserError(f"search.{key}: step = {step!r}: give a number above 0.")
    if step is not None and step > ends[1] - ends[0]:
        raise UserError(f"search.{key}: step = {step!r} is more than high less low: that is one value only.")
    return Range(ends[0], ends[1], bool(log), step)


def check_key(key: str, names: Sequence[Any]) -> None:
    """UserError for a key that cannot be tried with these methods."""
    _check_name(key)
    known = searchable(names)
    if key in known:
        return
    if key == LAYERS:
        raise UserError(f"search.{key}: {', '.join(map(str, names))} works on the whole network. Leave it out.")
    if key.startswith("method."):
        option = key.removeprefix("method.")
        lacking = next(name for name in names if option not in methods.options(str(name)))
        methods.check_options(str(lacking), {option: None})  # says so
    if key in SAME_ANSWERS:
        raise UserError(f"search.{key}: it changes time and memory, and no answer: there is nothing to find.")
    if key in LOOKS:
        raise UserError(f"search.{key}: in a trial dev rows are looked at as the search says. Set it in the recipe.")
    raise UserError(f"search.{key}: cannot be searched.{near_match(key, known)} What can: {', '.join(known)}.")


def searchable(names: Sequence[Any]) -> list[str]:
    """The keys that may be tried where these are the methods: of options, those that all of them have."""
    train = [key for key in flatten(Recipe().model_dump()) if key.startswith("train.")]
    options = [set(methods.options(str(name))) for name in names]
    shared = [f"method.{name}" for name in methods.options(str(names[0])) if all(name in each for each in options)]
    skipped = (
        *SAME_ANSWERS,
        *LOOKS,
        *(() if any(methods.METHODS[str(name)].by_layers for name in names) else (LAYERS,)),
    )
    changing = [key for key in train if key not in skipped]
    return ["model", "method.name", *shared, *changing, *DATA_KEYS]


def _check_value(key: str, value: Any, recipe: Recipe, names: Sequence[Any]) -> None:
    """UserError for a value that a recipe would not take."""
    if key == "method.name":
        methods.options(str(value))
        return
    if key.startswith("method."):
        for name in names:
            methods.check_options(str(name), {key.removeprefix("method."): value})
        return
    check_recipe(nested(flatten(recipe.model_dump()) | {key: as_whole(value)}))


def as_whole(value: Any) -> Any:
    """1.0 as 1, as a range's ends may be written for either."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) >= 1 else value


def _as_its_kind(key: str, domain: Choices | Range, recipe: Recipe, names: Sequence[Any]) -> Choices | Range:
    """A range of whole numbers where the recipe takes no others; choices as the recipe takes them."""
    if isinstance(domain, Choices):
        return Choices(tuple(as_whole(value) for value in domain.values))
    between = domain.low + (domain.high - domain.low) / 2
    between = between + min(0.5, (domain.high - domain.low) / 4) if between.is_integer() else between
    try:
        _check_value(key, between, recipe, names)
        return domain
    except UserError:
        parts = domain.low, domain.high, 1.0 if domain.step is None else domain.step
        if not all(float(part).is_integer() for part in parts):
            raise UserError(f"search.{key}: takes whole numbers; low, high and step must be some.") from None
        return Range(domain.low, domain.high, domain.log, domain.step, whole=True)


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with some keys set; another method starts from its own options and learning rate.

    One that works on the whole network takes all layers, whatever the values say.
    """
    flat = flatten(recipe.model_dump())
    if values.get("method.name", recipe.method.name) != recipe.method.name:
        flat = {key: value for key, value in flat.items() if not key.startswith("method.")}
        flat[RATE] = "auto"
    flat |= values
    if not methods.METHODS[str(flat["method.name"])].by_layers:
        flat[LAYERS] = "all"
    return check_recipe(nested(flat))


def default_space(recipe: Recipe, plan: Plan, rate: float, n_layers: int, n_trials: int, task: str) -> Space:
    """A few keys, the more important ones first: as many as there are trials for.

    plan: of the recipe as it is; rate: the method's own learning rate in this network, of n_layers blocks.
    """
    name, train = recipe.method.name, recipe.train
    options = methods.check_options(name, recipe.method.options)
    low, high = (float(f"{rate * times:.2g}") for times in (SLOWEST, FASTEST))
    low, high = min(low, plan.learning_rate), min(1.0, max(high, plan.learning_rate))
    space: Space = {RATE: Range(low, high, log=True)}
    if plan.epochs:
        space[EPOCHS] = _around(plan.epochs, [min(1000.0, float(f"{2 * plan.epochs:.4g}"))])
    if methods.METHODS[name].by_layers:
        depths = [k for k in (n_layers // 3, n_layers // 2, n_layers * 2 // 3) if 0 < k < n_layers]
        space[LAYERS] = _around(plan.layers, ["all", *reversed(depths)])
    if "rank" in options:
        space["method.rank"] = _around(options["rank"], [min(1024, options["rank"] * 2), options["rank"] // 2 or 1])
    if "alpha" in options:
        space["method.alpha"] = _around(options["alpha"], [None, float(options["rank"]), 4.0 * options["rank"]])
    if "targets" in options:
        space["method.targets"] = _around(options["targets"], ["all", "attention", "qv"])
    space["train.batch_size"] = _around(train.batch_size, [8, 16, 32])
    space["train.warmup"] = _around(train.warmup, [0.0, 0.06, 0.2])
    space["data.truncation"] = _around(recipe.data.truncation, ["head", "head+tail"])
    space["train.head_rate"] = _around(train.head_rate, [0.3, 1.0, 3.0])
    if task in ("single_label", "ordinal"):
        space["train.balance"] = _around(train.balance, ["none", "weights"])
    open_keys = [
        (key, domain) for key, domain in space.items() if isinstance(domain, Range) or len(domain.values) > 1
    ]
    return dict(open_keys[: max(FEWEST_KEYS, n_trials // TRIALS_A_KEY)])


def _around(own: Any, others: Sequence[Any]) -> Choices:
    """The recipe's own value and the others."""
    return Choices(tuple({_name(value): value for value in [own, *others]}.values()))
