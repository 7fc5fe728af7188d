"""What a run is made of, each value checked, and how it is written as TOML (`settings.py` reads what is typed).

Knows nothing of the clock, the network or the processor, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lightune.errors import UserError, near_match

Truncation = Literal["head", "tail", "head+tail"]
Task = Literal["single_label", "ordinal", "multi_label", "regression"]
TrainRows = Literal["auto", "all"] | Annotated[int, Field(ge=2)]
DevRows = Literal["auto"] | Annotated[int, Field(ge=1)]
TestRows = Literal["auto", "all"] | Annotated[int, Field(ge=1)]
Tokens = Literal["auto"] | Annotated[int, Field(ge=8)]
MaxTokens = Literal["auto", "most"] | Annotated[int, Field(ge=8)]
Duration = Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,3})?[smh]$")]


class Section(BaseModel):
    """Base of the recipe's tables: unknown keys are mistakes, values do not change after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataRecipe(Section):
    """Where the labelled text is and how much of it to use."""

    source: str = Field("embedded:imdb", description="Hub id (with @revision), file, folder or embedded:NAME")
    test: str | None = Field(None, description="separate test file or folder; else the source's own test split")
    text: str | None = Field(None, description='column, or a template such as "{title}. {content}"')
    pair: str | None = Field(
        None, description="the second text of each row, likewise, where two are to be classified"
    )
    label: str | None = Field(None, description='column of the class or of lists; "toxic,rude": columns of 0 and 1')
    task: Literal["auto"] | Task = Field(
        "auto", description="one label a row, a grade, several, or a number; auto: as the column looks, no grade"
    )
    encoding: str | None = Field(None, description="of text files that are not UTF-8, e.g. cp1252")
    delimiter: str | None = Field(None, description="of CSV files, where it is not found by itself: , ; | or tab")
    train_rows: TrainRows = Field("auto", description="stratified subset for training")
    dev_rows: DevRows = Field("auto", description="rows to choose the best state on")
    test_rows: TestRows = Field("auto", description="rows for before and after")
    max_tokens: MaxTokens = Field(
        "auto", description="longest text, special tokens included; most: what the model reads, up to 512"
    )
    truncation: Truncation = Field("head+tail", description="what stays of a longer text")


class MethodRecipe(BaseModel):
    """Which PEFT method, with its own options beside the name (`lightune methods` lists them)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field("lora", description="any row of `lightune methods`")

    @property
    def options(self) -> dict[str, Any]:
        """Everything in the table but the name."""
        return dict(self.model_extra or {})


class TrainRecipe(Section):
    """How the few parameters are fitted."""

    epochs: Literal["auto"] | Annotated[float, Field(ge=0, le=1000)] = Field(
        "auto", description="passes over the training rows"
    )
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0, le=1)] = Field(
        "auto", description="peak; auto = the method's"
    )
    head_rate: float = Field(1.0, description="the head's learning rate as a multiple of learning_rate", gt=0)
    batch_size: int = Field(16, description="texts per optimizer step, on all devices together", ge=1)
    max_tokens: Tokens = Field(
        "auto", description="of a text in most steps, where fewer than data.max_tokens; auto: all of them"
    )
    whole_steps: float = Field(
        0.12, description="share of the steps, the last, on texts up to data.max_tokens", ge=0, le=1
    )
    layers: Literal["all", "auto"] | Annotated[int, Field(ge=1)] = Field(
        "all", description="adapters in the top k blocks only; auto: as many as the time allows"
    )
    pooler: bool = Field(True, description="train and save a pretrained pooler along with the head")
    warmup: float = Field(0.06, description="share of the steps with a rising learning rate", ge=0, le=1)
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="of the rate, after the warm-up")
    weight_decay: float = Field(0.01, description="AdamW's, on matrices", ge=0)
    loss: Literal["auto", "cross_entropy", "focal", "squared_error", "absolute_error"] = Field(
        "auto", description="auto: cross_entropy or, of numbers, squared_error; focal: known texts count little"
    )
    balance: Literal["none", "weights", "sampling"] = Field(
        "none", description="all classes count alike, by weights in the loss or by how often their rows come"
    )
    clip: float = Field(1.0, description="largest gradient norm", gt=0)
    evaluations: int = Field(1, description="of the dev rows, per epoch", ge=1)
    patience: int = Field(3, description="evaluations of no gain before it stops, once it reads whole texts", ge=1)
    memory_tokens: Tokens = Field("auto", description="padded tokens per forward and backward pass")
    cache: bool = Field(True, description="keep on disk what leaves blocks below the trained ones (CPU)")
    gradient_checkpointing: Literal["auto"] | bool = Field("auto", description="trade time for memory")


class EvidenceRecipe(Section):
    """What the tuned classifier is held against, and what it has to show."""

    baselines: list[str] = Field(["majority", "tfidf", "probe"], description="rows of `lightune baselines`; none: []")
    doctor: bool = Field(True, description="look for faults in the data before the work")
    calibrate: bool = Field(True, description="probabilities by a temperature that dev rows choose")
    goal: str = Field("", description="answer only where it is met: precision >= 0.95, or accuracy >= 0.9")
    conformal: float | None = Field(
        None, description="sets of labels that hold the true one: how often; of numbers intervals, 0.9", gt=0, lt=1
    )
    slices: Literal["auto"] | list[str] = Field(
        "auto", description="columns to slice test rows by; auto: of few values"
    )
    require: list[str] = Field([], description="gates, exit code 3: accuracy>tfidf, f1_macro>=0.8")


class HardwareRecipe(Section):
    """Which machine parts to use; auto picks and prints why."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where the network runs")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="of the matrix products")


class Recipe(Section):
    """A whole run. Every field is read by something; `lightune run` prints the ones it chose itself."""

    model: str = Field("minilm", description="Hub id (with @revision), local folder, or minilm", min_length=1)
    seed: int = Field(0, description="of the split, the head, the adapters and the order of rows", ge=0, lt=2**63)
    seeds: int = Field(1, description="trainings, from seed on: how much chance in them matters", ge=1, le=100)
    time_budget: Duration | None = Field(
        None,
        description="for the whole run: 90s, 10m, 2h; epochs, and what is auto of rows and layers, are chosen to fit",
    )
    metrics: list[str] = Field([], description="more metrics: hub:NAME[@revision] runs code of the Hub")
    trackers: list[str] = Field([], description="who else is told the numbers; see docs/trackers.md")
    data: DataRecipe = DataRecipe()
    method: MethodRecipe = MethodRecipe()
    train: TrainRecipe = TrainRecipe()
    hardware: HardwareRecipe = HardwareRecipe()
    evidence: EvidenceRecipe = EvidenceRecipe()


class SearchRecipe(BaseModel):
    """How `lightune tune` looks for a better recipe. Beside these, what may be tried: any key that changes training.

    A list of values, or {low = 1e-4, high = 1e-2, log = true}; nothing: a few, by the number of trials.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    trials: int = Field(12, description="recipes that are tried", ge=1, le=10_000)
    rows: Literal["auto"] | Annotated[int, Field(ge=2)] = Field(
        "auto", description="training rows of a trial; auto: a twenty-fifth, of few all"
    )
    finalists: int = Field(2, description="best trials that are trained again, beside the recipe as it is", ge=1)
    fresh_seeds: int = Field(2, description="seeds of which each finalist is trained again", ge=1, le=100)
    storage: str | None = Field(
        None, description="Optuna storage, a URL or a journal file; default: search.db in the folder"
    )

    @property
    def space(self) -> dict[str, Any]:
        """Dotted key of the recipe -> what may be tried, as it was written."""
        return leaves(self.model_extra or {})


def leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """As `flatten`, but a table that says a range, {low = 1, high = 3}, is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        is_table = isinstance(value, Mapping) and value and not {"low", "high"} & set(value)
        found |= leaves(value, f"{prefix}{key}.") if is_table else {f"{prefix}{key}": value}
    return found


@dataclass(frozen=True)
class Checked:
    """A recipe, its name, and where each value came from: `origins["train.epochs"] == "command line"`."""

    recipe: Recipe
    origins: dict[str, str]
    name: str
    search: SearchRecipe = field(default_factory=SearchRecipe)


def check_recipe(values: Mapping[str, Any]) -> Recipe:
    """`values` as a Recipe; UserError lists every key that is unknown or out of range."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError("recipe: " + "\n  ".join(_explain(error.errors()))) from None


def check_search(values: Any) -> SearchRecipe:
    """The table [search] of a recipe; what may be tried is checked where it is known what a recipe takes."""
    if not isinstance(values, Mapping):
        raise UserError(f"recipe: search = {values!r}: give a table, such as [search] with trials = 20.")
    try:
        return SearchRecipe.model_validate(values)
    except ValidationError as error:
        found = _explain(error.errors(), SearchRecipe, "search.")
        raise UserError("recipe: " + "\n  ".join(found)) from None


def seconds_of(duration: str) -> float:
    """600.0 for "10m"."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def write_recipe(checked: Checked, chosen: Mapping[str, Any], path: Path) -> None:
    """Writes the recipe as TOML that can be run again, with each value's origin as a comment.

    chosen: dotted key -> what an "auto" became; it takes the place of "auto" and says so. None leaves a key out.
    """
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment(f"Resolved from {checked.name}. To run it again: lightune run FOLDER/{path.name}"))
    document.add(tomlkit.comment("where the run was started: paths in it are relative to that place"))
    flat = flatten(checked.recipe.model_dump()) | dict(chosen)
    given = {key: value for key, value in flat.items() if value is not None}
    for key, value in sorted(given.items(), key=lambda item: "." in item[0]):
        *tables, leaf = key.split(".")
        table: Any = document
        for part in tables:
            table = table.setdefault(part, tomlkit.table())
        item = tomlkit.item(value)
        item.comment("chosen" if key in chosen else checked.origins.get(key, "default"))
        table[leaf] = item
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"epochs": 2}} as {"train.epochs": 2}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
        flat |= inner
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"train.epochs": 2} as {"train": {"epochs": 2}}."""
    values: dict[str, Any] = {}
    for key, value in flat.items():
        put(values, key, value)
    return values


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets a value at a dotted key of nested tables; makes those that are not there."""
    *tables, leaf = key.split(".")
    for part in tables:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {key}: '{part}' is a single value, not a table.")
    values[leaf] = value


def _explain(details: Iterable[Any], table: type[BaseModel] = Recipe, before: str = "") -> list[str]:
    """One line per wrong key of a table; the branches of a union ("auto" or a number) are joined into one.

    before: what stands before its keys.
    """
    reasons: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for detail in details:
        section, path = _path(detail["loc"], table)
        path = before + path
        values[path] = detail["input"]
        if detail["type"] == "extra_forbidden":
            reasons[path] = [f"unknown key.{near_match(path.split('.')[-1], section)} Known: {', '.join(section)}"]
        else:
            is_time = path == "time_budget" and detail["type"] == "string_pattern_mismatch"
            message = "write it like 90s, 10m or 2h" if is_time else detail["msg"].removeprefix("Input ").rstrip(".")
            reasons.setdefault(path, []).append(message)
    return [
        f"{path}: {why[0]}." if why[0].startswith("unknown") else f"{path} = {values[path]!r}: {', or '.join(why)}."
        for path, why in reasons.items()
    ]


def section_of(table: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The table that stands at a key of a table; None for a single value or a key that is not there."""
    field = table.model_fields.get(key)
    inner = None if field is None else field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _path(location: tuple[Any, ...], section: type[BaseModel]) -> tuple[list[str], str]:
    """The keys of the section that was searched, and the dotted path without the union's branch names."""
    path: list[str] = []
    for part in map(str, location):
        path.append(part)
        inner = section_of(section, part)
        if inner is None:
            break
        section = inner
    return list(section.model_fields), ".".join(path)
