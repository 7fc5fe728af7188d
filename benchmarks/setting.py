"""What the parts of the benchmark share: sizes, rows, the job of a worker, and what machine this is."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RATE = {"adapter": 1e-3, "full": 5e-5}  # the usual ones; 1e-3 is what tutorials of LoRA for classification take


@dataclass(frozen=True)
class Sizes:
    """How much of everything is measured; batch_sizes: those a peer may choose its fastest from.

    job_rounds: whole jobs of each contender; they take as long as everything else together. warm_up: seconds that
    each takes steps before any of them counts.
    """

    rounds: int
    job_rounds: int
    step_rows: int
    train_rows: int
    test_rows: int
    answered_texts: int
    short_texts: int
    batch_sizes: tuple[int, ...]
    scaling_rows: tuple[int, ...]
    scaling_tokens: int = 32  # a row's, so that 16,384 rows take minutes
    max_tokens: int = 512
    warm_up: float = 60.0


FULL = Sizes(3, 1, 96, 2_000, 2_000, 256, 200, (1, 4, 8, 16, 32, 64), (1_024, 4_096, 16_384))
QUICK = Sizes(1, 1, 16, 32, 24, 12, 4, (1, 4), (32, 64, 128), max_tokens=96, warm_up=0.0)


@dataclass(frozen=True)
class Setting:
    """One run of the benchmark. tuning: rows of the other half of the reviews, to choose settings on.

    only: the contenders that take part in the races of steps and jobs; all of them if there are none.
    """

    model: str
    sizes: Sizes
    folder: Path
    tuning: bool = False
    only: tuple[str, ...] = ()

    def of(self, names: Sequence[str]) -> list[str]:
        """Those of `names` that take part."""
        chosen = [name for name in names if name in self.only or not self.only]
        if not chosen:
            raise SystemExit(f"--only: none of {', '.join(self.only)} takes part here; there are {', '.join(names)}")
        return chosen


@dataclass(frozen=True)
class Job:
    """A training: what to train, on which rows, where to leave it. A worker gets it as one word of JSON."""

    model: str
    rows: str
    folder: str
    max_tokens: int = 512
    batch_size: int = 16
    epochs: float = 1.0

    def word(self) -> str:
        """For `Job.of`, in another process."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, word: str) -> Job:
        """The job of a `word`."""
        return cls(**json.loads(word))


@dataclass(frozen=True)
class Rows:
    """Texts with class ids."""

    texts: list[str]
    y: list[int]


def reviews(*sizes: int, tuning: bool | None = False) -> list[Rows]:
    """As many IMDB reviews as asked for each, no text twice: half of them are for the race and half for tuning.

    tuning: None takes from both halves. The order is drawn once and for all, so that the halves never mix.
    """
    import numpy as np

    from lightune.data.sources import read

    table = next(iter(read("embedded:imdb").tables.values()))
    labelled = dict(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    texts = sorted(labelled)
    order = np.random.default_rng(len(texts)).permutation(len(texts))
    mine = iter(order if tuning is None else order[int(tuning) :: 2])
    return [_rows([texts[next(mine)] for _ in range(size)], labelled) for size in sizes]


def _rows(texts: list[str], labelled: dict[str, str]) -> Rows:
    return Rows(texts, [int(labelled[text] == "positive") for text in texts])


def write_rows(path: Path, rows: Rows) -> Path:
    """A CSV file with the columns text and label, 0 or 1."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(rows.texts, rows.y, strict=True))
    return path


def read_rows(path: str | Path) -> Rows:
    """What `write_rows` wrote."""
    import pandas as pd

    table = pd.read_csv(path)
    return Rows(table["text"].tolist(), table["label"].tolist())


def token_lengths(model: str, texts: list[str], max_tokens: int) -> list[int]:
    """Tokens of each text, special ones included, padding not."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return [len(ids) for ids in tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]]


def attention_targets(model: str) -> list[str]:
    """Where tutorials put LoRA: the projections of query and value, by the names of the architecture."""
    from transformers import AutoConfig

    is_distilbert = AutoConfig.from_pretrained(model).model_type == "distilbert"
    return ["q_lin", "v_lin"] if is_distilbert else ["query", "value"]


def run_command(target: str | Path, output: Path, settings: Iterable[str], *options: str) -> list[str]:
    """`lightune run` as a user types it, for this Python."""
    words = [word for setting in settings for word in ("--set", setting)]
    where = ["--output", str(output), "--overwrite", "--offline"]
    return ["-m", "lightune", "run", str(target), *where, *options, *words]


def has_fast_bf16() -> bool:
    """Whether this machine multiplies bf16 faster than fp32."""
    from lightune.hardware import choose_hardware

    return choose_hardware().precision == "bf16"  # what lightune takes, the others may


def machine() -> dict[str, Any]:
    """Processor, cores, threads, bf16, memory; the GPU if torch sees one."""
    import psutil
    import torch

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16": has_fast_bf16(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    import platform

    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str]:
    """Of Python and the libraries that were raced."""
    from importlib.metadata import PackageNotFoundError, version

    from lightune.hardware import environment

    found = environment()
    for name in ("onnx", "onnxruntime"):
        try:
            found["versions"][name] = version(name)
        except PackageNotFoundError:
            found["versions"][name] = "not installed"
    return {"python": found["python"], **found["versions"]}


def describe(command: Sequence[str], sizes: Any) -> dict[str, Any]:
    """What stands beside every figure: the command, the sizes, the machine, the versions."""
    return {"command": " ".join(command), "sizes": asdict(sizes), "machine": machine(), "versions": versions()}
