"""Training steps on a GPU: Trainer and PEFT against lightune's loop, on networks like DistilBERT and BERT-large.

    python benchmarks/gpu.py                        into benchmarks/results/gpu.json
    python benchmarks/gpu.py --device cpu --tiny    the same path with tiny networks, on any machine

Nothing is downloaded: the weights are random, the tokenizer and the texts are made on the spot, which changes no
speed. Contenders and figures are those of steps.py, memory being the GPU's; all in bf16 but the tutorial, which is as
written.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import render
import steps
from bench import RESULTS
from setting import Job, Rows, describe, write_rows

CONTENDERS = ("tutorial", "best stock", "full", "lightune")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class GpuSizes:
    """What is raced. networks: name -> arguments of its configuration; median_words: of a text, log-normal."""

    networks: dict[str, dict[str, Any]]
    vocabulary: int
    n_rows: int
    median_words: int
    max_tokens: int
    batch_size: int
    rounds: int
    warm_up: float  # seconds of each contender's steps before any of them counts


FULL = GpuSizes(
    {
        "DistilBERT": {"model_type": "distilbert"},
        "BERT-large": {
            "model_type": "bert",
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
    },
    vocabulary=30_522,
    n_rows=512,
    median_words=230,  # as IMDB's, of which a seventh is longer than 512 tokens
    max_tokens=512,
    batch_size=32,
    rounds=3,
    warm_up=6.0,
)
TINY = GpuSizes(
    {
        "DistilBERT": {"model_type": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
        "BERT-large": {
            "model_type": "bert",
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 64,
        },
    },
    vocabulary=300,
    n_rows=16,
    median_words=12,
    max_tokens=32,
    batch_size=4,
    rounds=1,
    warm_up=0.0,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Races on each network, and writes and prints the figures."""
    arguments = _parser().parse_args(argv)
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    _demand(arguments.device)
    os.environ["HF_HUB_OFFLINE"] = "1"
    sizes = TINY if arguments.tiny else FULL
    sizes = replace(sizes, rounds=arguments.rounds or sizes.rounds)
    record = describe(_command(arguments), sizes) | {"networks": {}}
    for name in arguments.networks or sizes.networks:
        with tempfile.TemporaryDirectory() as folder:
            record["networks"][name] = measure(sizes, name, Path(folder), arguments.contenders or CONTENDERS)
        print(f"\n{name}\n\n{render.table('steps', {'figures': record['networks'][name]})}", flush=True)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def measure(sizes: GpuSizes, name: str, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """The race of steps.py on one network."""
    model = make_model(folder / "model", sizes.networks[name], sizes.vocabulary, sizes.max_tokens)
    rows = write_rows(folder / "rows.csv", make_rows(sizes))
    job = Job(str(model), str(rows), str(folder), sizes.max_tokens, sizes.batch_size)
    return steps.race(job, names, sizes.rounds, sizes.warm_up)


def make_rows(sizes: GpuSizes) -> Rows:
    """Random words, in texts as long as reviews are."""
    import numpy as np

    rng = np.random.default_rng(sizes.n_rows)
    lengths = np.exp(rng.normal(np.log(sizes.median_words), 0.6, sizes.n_rows)).astype(int) + 1
    n_words = sizes.vocabulary - len(SPECIAL)
    texts = [" ".join(f"w{i}" for i in rng.integers(0, n_words, length)) for length in lengths]
    return Rows(texts, rng.integers(0, 2, sizes.n_rows).tolist())


def make_model(folder: Path, config: dict[str, Any], vocabulary: int, max_tokens: int) -> Path:
    """A folder with random weights and a WordPiece tokenizer of made-up words."""
    import torch
    from transformers import AutoConfig, AutoModel

    shape = AutoConfig.for_model(**config, vocab_size=vocabulary, max_position_embeddings=max_tokens)
    torch.manual_seed(vocabulary)
    AutoModel.from_config(shape).save_pretrained(folder)
    _tokenizer(vocabulary).save_pretrained(folder)
    return folder


def _tokenizer(vocabulary: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *(f"w{i}" for i in range(vocabulary - len(SPECIAL)))]
    core = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=core, model_input_names=inputs, mask_token="[MASK]", **marks)


def _demand(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu.py: torch sees no CUDA device. To try the path without one: --device cpu --tiny")


def _command(arguments: argparse.Namespace) -> list[str]:
    flags = (["--device", "cpu"] if arguments.device == "cpu" else []) + ["--tiny"] * arguments.tiny
    flags += ["--rounds", str(arguments.rounds)] if arguments.rounds else []
    for name in ("networks", "contenders"):
        chosen = getattr(arguments, name)
        flags += [f"--{name}", *map(repr, chosen)] if chosen else []
    return ["python", "benchmarks/gpu.py", *flags]


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, few rows")
    parser.add_argument("--networks", nargs="+", choices=list(FULL.networks), help="default: all")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, help="default: all")
    parser.add_argument("--rounds", type=int, help="turns of each contender that count; default: 3")
    parser.add_argument("--results", type=Path, default=RESULTS / "gpu.json", metavar="FILE.json")
    return parser


if __name__ == "__main__":
    main()
