"""What an adapter must be used with: its labels, its text, its base. Stored beside the weights and obeyed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lightune import __version__
from lightune.data.batching import Encoder
from lightune.errors import UserError
from lightune.evidence.calibration import Calibration, parse_goal
from lightune.evidence.decisions import Readout
from lightune.model.backbones import Base
from lightune.model.methods import METHODS
from lightune.recipe import Task
from lightune.records import UNSCALED, Scale

FILE = "contract.json"
LOADED = (".json", ".safetensors", ".bin", ".model", "vocab.txt", "merges.txt")  # what is looked for by name
CARD = "README.md"  # may be edited: nothing is loaded from it


class BaseContract(BaseModel):
    """The base model that the adapter belongs to; the digest decides, the name only finds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Hub id, or a path relative to where the run was started")
    revision: str | None = Field(description="commit on the Hub")
    digest: str = Field(description="sha256 of the base's safetensors files", pattern="^[0-9a-f]{64}$")
    beside: str | None = Field(None, description="a local base's path relative to the adapter folder")


class Abstention(BaseModel):
    """When an answer is held back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    goal: str = Field(description="what answers reach, as far as the dev rows tell")
    thresholds: list[float | None] = Field(description="lowest probability of each label; null: it is never given")


class Conformal(BaseModel):
    """Sets of labels that hold the true one with a known probability."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: float = Field(description="that probability, for rows like the dev rows", gt=0, lt=1)
    threshold: float = Field(description="probability from which on a label belongs to the set", ge=0, le=1)


class Interval(BaseModel):
    """Around answers that are numbers: the true one is in it with a known probability."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: float = Field(description="that probability, for rows like the dev rows", gt=0, lt=1)
    half_width: float = Field(description="how far it goes to either side, in the label's unit", ge=0)


class OutputScale(BaseModel):
    """What the network's output means: a number is mean + deviation * output."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    mean: float = Field(description="of the training rows' labels")
    deviation: float = Field(description="their standard deviation", gt=0)


class Contract(BaseModel):
    """Everything about a classifier that its weights do not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    lightune: str = Field(description="version that wrote this")
    task: Task = Field("single_label", description="one label a text, a grade, each label by itself, or a number")
    labels: list[str] = Field(
        description="names of classes in the order of the logits; of a number, value", min_length=1
    )
    text: str = Field(description="the column, or the template over columns, that makes the text")
    pair: str | None = Field(None, description="the same of the second text, of a classifier of pairs")
    between: str | None = Field(None, description="token between the texts of a pair, where the tokenizer puts none")
    label: str = Field(description="the column that held the class, or the number, in the training data")
    max_tokens: int = Field(description="longest input, special tokens included", ge=1)
    truncation: Literal["head", "tail", "head+tail"]
    method: str
    precision: Literal["fp32", "bf16", "fp16"] = Field(description="in which it was trained and proved")
    trained_on: str = Field(description="sha256 of the data source it was trained on, as it was read")
    base: BaseContract
    temperature: float = Field(
        1.0, description="logits are divided by it before the softmax or sigmoid", gt=0, allow_inf_nan=False
    )
    thresholds: list[float] | None = Field(
        None, description="multi_label: lowest probability with which each label is given, where there is no goal"
    )
    abstention: Abstention | None = Field(None, description="without it every text gets a label")
    conformal: Conformal | None = Field(None, description="without it no sets are given")
    scale: OutputScale | None = Field(None, description="regression: what the output means as a number")
    interval: Interval | None = Field(None, description="regression: without it numbers come alone")
    fingerprint: list[float] = Field(default_factory=list, description="logits of a fixed text, compared at loading")
    files: dict[str, str] = Field(default_factory=dict, description="file of the adapter folder -> its sha256")
    seal: str = Field("", description="sha256 of everything above")

    @field_validator("labels")
    @classmethod
    def _no_twins(cls, labels: list[str]) -> list[str]:
        if len(set(labels)) < len(labels):
            raise ValueError("a label stands there twice")
        return labels

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"{method!r} is no method of this lightune")
        return method

    @model_validator(mode="after")
    def _one_each(self) -> Contract:
        for thresholds in (self.thresholds, self.abstention.thresholds if self.abstention else None):
            if thresholds is not None and len(thresholds) != len(self.labels):
                raise ValueError("not one threshold for each label")
        if (self.thresholds is not None) != (self.task == "multi_label"):
            raise ValueError("thresholds of labels belong to a multi_label task, and to no other")
        if (self.scale is not None) != (self.task == "regression") or (self.interval and self.scale is None):
            raise ValueError("a scale and an interval belong to a regression task, and to no other")
        if (len(self.labels) == 1) != (self.task == "regression"):
            raise ValueError("a regression task has one output, and any other has two classes at least")
        return self

    @property
    def calibration(self) -> Calibration:
        """What dev rows had said; not how many they were."""
        goal, sets, interval = self.abstention, self.conformal, self.interval
        promise = sets or interval
        return Calibration(
            self.temperature,
            goal=parse_goal(goal.goal) if goal else None,
            thresholds=tuple(goal.thresholds) if goal else (),
            given_from=tuple(self.thresholds or ()),
            level=promise.level if promise else None,
            set_threshold=sets.threshold if sets else None,
            scale=Scale(self.scale.mean, self.scale.deviation) if self.scale else UNSCALED,
            half_width=interval.half_width if interval else None,
        )

    @property
    def readout(self) -> Readout:
        """How the network's logits are read, before a goal holds answers back."""
        return self.calibration.readout(self.task)


def make_contract(
    labels: Sequence[str],
    text: str,
    label: str,
    encoder: Encoder,
    method: str,
    base: Base,
    adapter: Path,
    trained_on: str,
    precision: str,
    calibration: Calibration,
    task: Task = "single_label",
    pair: str | None = None,
) -> Contract:
    """The contract of a freshly trained classifier that will be saved in `adapter`."""
    reference = base.reference
    is_local = reference.why == "local folder"
    beside = os.path.relpath(reference.folder.resolve(), adapter.resolve()) if is_local else None
    values: dict[str, Any] = {
        "task": task,
        "labels": list(labels),
        "text": text,
        "pair": pair,
        "between": encoder.frame.between,
        "label": label,
        "method": method,
        "precision": precision,
        "temperature": calibration.temperature,
    }
    if task == "regression":
        values["scale"] = OutputScale(**asdict(calibration.scale))
        if calibration.half_width is not None:
            values["interval"] = Interval(level=calibration.level, half_width=calibration.half_width)
    elif task == "multi_label":
        values["thresholds"] = list(calibration.given_from)
    if calibration.goal:
        values["abstention"] = Abstention(goal=str(calibration.goal), thresholds=list(calibration.thresholds))
    if calibration.level is not None and calibration.set_threshold is not None:
        values["conformal"] = Conformal(level=calibration.level, threshold=calibration.set_threshold)
    return Contract(
        **values,
        trained_on=trained_on,
        lightune=__version__,
        max_tokens=encoder.max_tokens,
        truncation=encoder.truncation,
        base=BaseContract(name=reference.name, revision=reference.revision, digest=base.digest, beside=beside),
    )


def write_contract(contract: Contract, adapter: Path) -> Contract:
    """Writes contract.json into the adapter folder, with the sha256 of every file that is there by now."""
    names = sorted(path.name for path in adapter.iterdir() if path.is_file() and path.name not in (FILE, CARD))
    listed = contract.model_copy(update={"files": {name: _sha256(adapter / name) for name in names}})
    sealed = listed.model_copy(update={"seal": seal_of(listed.model_dump_json())})
    (adapter / FILE).write_text(sealed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return sealed


def read_contract(adapter: Path) -> Contract:
    """The contract of an adapter folder. UserError if there is none or it is not one of ours."""
    path = adapter / FILE
    try:
        content = path.read_bytes()
        contract = Contract.model_validate_json(content)
    except OSError:  # not there, or no file
        raise UserError(
            f"{adapter}: no {FILE}, so its labels and its truncation are unknown. Give the folder of a lightune "
            f"run, or the adapter folder in it."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}. It was changed, or another lightune wrote it.") from None
    if contract.seal != seal_of(content):
        raise UserError(f"{path}: was changed since the run ended. Copy the folder again, or train again.")
    return contract


def seal_of(contract: str | bytes) -> str:
    """sha256 of what a contract's JSON says, its own seal left out, however it is spaced and ordered."""
    values = {key: value for key, value in json.loads(contract).items() if key != "seal"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def check_files(contract: Contract, adapter: Path) -> None:
    """UserError if a file that the run wrote into the adapter folder is not the one that was proved."""
    if not contract.files:
        raise UserError(
            f"{adapter / FILE}: names no files, so nothing says which were proved. Copy the folder again."
        )
    others = sorted(path.name for path in adapter.iterdir() if path.name.endswith(LOADED))
    if foreign := [name for name in others if name not in (FILE, *contract.files)]:
        raise UserError(f"{adapter}: {foreign} did not come from the run, and would be loaded. Move it elsewhere.")
    for name, digest in contract.files.items():
        path = adapter / Path(name).name  # a stranger's contract leads nowhere else
        if not path.is_file():
            raise UserError(f"{adapter}: {path.name} is missing. Copy the whole folder again.")
        if _sha256(path) != digest:
            raise UserError(
                f"{path}: is not the file that was proved when the run ended; it was changed or damaged since. "
                f"Copy the folder again, or train again."
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
