"""Memory and time of a run on few and on many rows: python benchmarks/big_data.py [ROWS] [TRAIN_ROWS …]

ROWS: 3,600,000, the size of amazon_polarity, whose columns the rows have; their texts are put together from pieces of
the embedded reviews, so that hardly two are alike. TRAIN_ROWS: data.train_rows, `20000` and `all` unless given. Each
run is a whole `lightune.run` with a tiny random network and next to no training, in a process of its own.

Counts the process's own memory (`memory.py`). What may grow is a few numbers a row, 8 bytes each: its place in the
table, the hash of its text, the order of both while they are sorted; and of rows that are trained on, where their
tokens start and how many there are. Exit code 1 if many rows take 400 MiB more than few.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

import memory
from memory import MIB

FEW_ROWS = 200_000
LIMIT = 400 * MIB
PIECE_WORDS = 10
MOST_PIECES = 15  # of a text, and 2 at least: 80 words on average
CHUNK_ROWS = 20_000
STAGES = ("read", "tokenise", "plan", "before", "train", "after")
STEPS = 10  # of training; like max_tokens low, and the same for all: what a network holds is not in question
SETTINGS: dict[str, Any] = {
    "data.text": "{title}. {content}",
    "data.label": "label",
    "data.test_rows": 500,
    "data.max_tokens": 64,
    "train.batch_size": 32,
}


def pieces() -> tuple[list[str], list[int]]:
    """Pieces of 10 words of the embedded reviews, and the class of the review that each is from."""
    from lightune.data.sources import read

    texts: list[str] = []
    classes: list[int] = []
    for source in ("embedded:imdb", "embedded:rotten-tomatoes"):
        for row in read(source).tables["train"].to_pylist():
            words = row["text"].split()
            found = [" ".join(words[i : i + PIECE_WORDS]) for i in range(0, len(words), PIECE_WORDS)]
            texts += found
            classes += [int(row["label"] == "positive")] * len(found)
    return texts, classes


def made_up(n_rows: int) -> Iterator[pa.Table]:
    """Rows with the columns of amazon_polarity, some at a time."""
    rng = np.random.default_rng(0)
    texts, classes = pieces()
    for start in range(0, n_rows, CHUNK_ROWS):
        n = min(CHUNK_ROWS, n_rows - start)
        chosen = rng.integers(len(texts), size=(n, MOST_PIECES + 1)).tolist()
        lengths = rng.integers(2, MOST_PIECES + 1, size=n).tolist()
        contents = [" ".join([texts[i] for i in row[1 : 1 + k]]) for row, k in zip(chosen, lengths, strict=True)]
        labels = [classes[row[1]] for row in chosen]
        yield pa.table({"label": labels, "title": [texts[row[0]] for row in chosen], "content": contents})


def write_rows(path: Path, n_rows: int) -> None:
    """A Parquet file of n_rows, written chunk by chunk."""
    tables = made_up(n_rows)
    first = next(tables)
    with parquet.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def write_network(folder: Path) -> None:
    """A BERT of two narrow blocks with random weights, and the tokenizer of the embedded base model."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from lightune.model.backbones import locate

    tokenizer = AutoTokenizer.from_pretrained(locate("minilm").folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = AutoConfig.for_model("bert", vocab_size=len(tokenizer), **sizes)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def work(data: str, network: str, train_rows: str, folder: str) -> None:
    """One worker: a whole run; answers with the seconds of its phases."""
    import lightune
    from lightune.journal import Journal

    n_rows = parquet.read_metadata(data).num_rows
    n_train = n_rows if train_rows == "all" else int(train_rows)
    size = {"data.train_rows": "all" if train_rows == "all" else n_train}
    settings = SETTINGS | size | {"model": network, "train.epochs": STEPS * SETTINGS["train.batch_size"] / n_train}

    def run() -> dict[str, float]:
        result = lightune.run(data, settings=settings, output=folder, overwrite=True, journal=Journal(quiet=True))
        seconds: dict[str, float] = result.results["seconds"]
        return seconds

    memory.report(run)


def main(n_rows: int = 3_600_000, *train_rows: str) -> bool:
    """Prints a line per run; whether many rows take about the memory of few."""
    within = True
    print(f"{'rows':>10} {'size':>9} {'train_rows':>10} {'peak':>9}  " + " ".join(f"{s:>9}" for s in STAGES))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        network, output = Path(folder, "network"), Path(folder, "run")
        write_network(network)
        paths = {n: Path(folder, f"{n}.parquet") for n in (FEW_ROWS, n_rows)}
        for n, path in paths.items():
            write_rows(path, n)
        for asked in train_rows or ("20000", "all"):
            peaks = {}
            for n, path in paths.items():
                seconds, peaks[n] = memory.peak_of(__file__, str(path), str(network), asked, str(output))
                size, peak = f"{path.stat().st_size / MIB:,.0f} MiB", f"{peaks[n] / MIB:,.0f} MiB"
                stages = " ".join(f"{seconds[stage]:>7.1f} s" for stage in STAGES)
                print(f"{n:>10,} {size:>9} {asked:>10} {peak:>9}  {stages}", flush=True)
            within &= peaks[n_rows] - peaks[FEW_ROWS] < LIMIT
    return within


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(*sys.argv[2:])
    else:
        rows = [int(argument) for argument in sys.argv[1:2]]
        sys.exit(0 if main(*rows, *sys.argv[2:]) else 1)
