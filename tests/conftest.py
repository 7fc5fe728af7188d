"""No network, no home, one thread; tiny models and a small data file made once for all tests."""

from __future__ import annotations

import os
import tempfile

# before any library is imported: they read these once
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="lightune-tests-")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes share the tests
if not os.environ.get("LIGHTUNE_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is compared to the last digits is compared on the CPU

import csv
import gc
import io
from pathlib import Path

import pytest

from lightune.journal import Journal
from lightune.records import Result
from tests import tiny

TINY_SETTINGS = [
    "train.epochs=6",
    "train.learning_rate=1e-2",
    "train.batch_size=8",
    "data.max_tokens=32",
    "data.dev_rows=8",
    "hardware.device=cpu",
    "hardware.precision=fp32",
]

PLACES = ("here", "there", "at home", "by the door", "upstairs", "outside", "in town", "again")


@pytest.fixture(scope="module", autouse=True)
def looked_through_once():
    """Each run looks several times for what it has left, through all that is loaded; here through what is new."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def reviews(tmp_path_factory) -> Path:
    """A CSV of short made-up reviews, columns text, sentiment and shop, which tiny models can learn."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    names = {0: "negative", 1: "positive"}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "sentiment", "shop"])
        for place in PLACES:
            writer.writerows([f"{text} {place}", names[y], "web"] for text, y in tiny.EXAMPLES[2])
    return path


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    return tiny.make("bert", tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def journal() -> Journal:
    return Journal(io.StringIO())


@pytest.fixture(scope="session")
def tiny_run(reviews, tiny_bert, tmp_path_factory) -> Result:
    """A finished run of tiny BERT on the reviews; nobody may change it."""
    import lightune

    output = tmp_path_factory.mktemp("runs") / "tiny"
    settings = [f'model="{tiny_bert}"', *TINY_SETTINGS]
    return lightune.run(str(reviews), settings=settings, output=str(output), journal=Journal(io.StringIO()))
