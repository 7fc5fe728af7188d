"""Prediction: many texts at once, and one short text at a time, with the same trained adapter for all.

lightune answers through `lightune.Classifier`. The others get the adapter merged into its base:
`transformers.pipeline` on texts as they come, in the batch size and precision that it is fastest at, ONNX Runtime in
fp32 and with dynamic int8 quantisation, on batches of texts of like length. What each is fastest at is found in its
first turn, which is not counted. `equal` is the share of the texts that get lightune's label; it says something only
where the accuracy says that the adapter learned to tell them apart.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jobs
import turns
from setting import Job, Rows, Setting, has_fast_bf16, machine, read_rows, reviews, token_lengths, write_rows

Ways = dict[str, Callable[[list[str]], list[str]]]  # how a contender can be asked -> labels of texts
SHORT_WORDS = 12
TEST_ROWS = 24  # of the training, which is not what is measured
ONNX = {"onnxruntime fp32": "fp32.onnx", "onnxruntime int8": "int8.onnx"}
LEFT_OUT = "onnxruntime, onnx or onnxscript is not installed: pip install '.[bench]'"


def measure(setting: Setting) -> dict[str, Any]:
    """Trains once, exports once, and lets all answer in turns."""
    sizes = setting.sizes
    asked, *trained = reviews(sizes.answered_texts, sizes.train_rows, TEST_ROWS, tuning=setting.tuning)
    files = [
        write_rows(setting.folder / name, rows) for name, rows in zip(("train.csv", "test.csv"), trained, strict=True)
    ]
    job = Job(setting.model, str(files[0]), str(setting.folder), sizes.max_tokens)
    settings = {**jobs.as_the_tutorial(job), "data.dev_rows": TEST_ROWS}
    jobs.run(job.model, files[0], files[1], setting.folder / "run", settings)
    return race(setting.folder, asked, sizes.max_tokens, sizes.batch_sizes, sizes.short_texts, sizes.rounds)


def race(
    folder: Path, asked: Rows, max_tokens: int, batch_sizes: Sequence[int], n_short: int, n_rounds: int
) -> dict[str, Any]:
    """Figures of each contender on the run in `folder`/run."""
    merge(folder)
    names = ["lightune", "pipeline"]
    left_out = {} if has_onnx() else dict.fromkeys(ONNX, LEFT_OUT)
    if has_onnx():
        export(folder, max_tokens)
        names += ONNX
    texts = write_rows(folder / "asked.csv", asked)
    sizes = ",".join(map(str, batch_sizes))
    options = [str(folder), str(texts), sizes, str(max_tokens), str(n_short), str(machine()["threads"])]
    measured = turns.race({name: [__file__, name, *options] for name in names}, n_rounds)
    n_tokens = sum(token_lengths(str(folder / "merged"), asked.texts, max_tokens))
    reference = measured["lightune"][0]["labels"]
    figures = {name: _medians(done, n_tokens, reference, asked.y) for name, done in measured.items()}
    return {"contenders": figures, "left_out": left_out, "texts": len(asked.y), "tokens": n_tokens}


def _medians(done: Sequence[turns.Turn], n_tokens: int, reference: list[str], y: list[int]) -> dict[str, Any]:
    seconds, first = turns.median(done, "seconds"), done[0]
    return {
        "seconds": seconds,
        "tokens_per_second": n_tokens / seconds,
        "milliseconds_single": 1000 * turns.median(done, "seconds_single"),
        "equal": _share_of_equal(first["labels"], reference),
        "accuracy": _share_of_equal(first["labels"], list(map(str, y))),
        "way": first["way"],
        "way_single": first["way_single"],
    }


def _share_of_equal(labels: list[str], others: list[str]) -> float:
    return sum(a == b for a, b in zip(labels, others, strict=True)) / len(labels)


def has_onnx() -> bool:
    """Whether ONNX Runtime and what the export needs are here."""
    return all(find_spec(name) for name in ("onnxruntime", "onnx", "onnxscript"))


def merge(folder: Path) -> None:
    """The run's adapter folded into its base, as a folder that transformers loads."""
    from lightune.artifact.loading import load_adapter
    from lightune.model import adapters

    loaded = load_adapter(folder / "run")
    adapters.merge(loaded.model).save_pretrained(folder / "merged")  # type: ignore[operator]
    loaded.encoder.tokenizer.save_pretrained(folder / "merged")


def export(folder: Path, max_tokens: int) -> None:
    """The merged model as ONNX with free batch and length, and the same with dynamic int8 quantisation."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "merged", attn_implementation="eager").eval()
    inputs = dict(tokenizer(["two texts", "of unlike length, padded"], padding=True, return_tensors="pt"))
    free = {0: torch.export.Dim("batch", max=4096), 1: torch.export.Dim("length", max=max_tokens)}
    path = folder / ONNX["onnxruntime fp32"]
    torch.onnx.export(
        model,
        kwargs=inputs,
        f=path,
        input_names=list(inputs),
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(inputs, free),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    quantize_dynamic(path, folder / ONNX["onnxruntime int8"], weight_type=QuantType.QInt8)


def work(name: str, folder: str, asked: str, sizes: str, max_tokens: str, n_short: str, threads: str) -> None:
    """One worker: finds its best way in the first turn, and takes it in the others."""
    texts = read_rows(asked).texts
    short = [" ".join(text.split()[:SHORT_WORDS]) for text in texts[: int(n_short)]]
    batch_sizes, limit, n_threads = list(map(int, sizes.split(","))), int(max_tokens), int(threads)
    best: tuple[str, str] | None = None
    ways: Ways = {}
    for _ in turns.whistles():
        if best is None:
            ways = ways_of(name, Path(folder), batch_sizes, limit, n_threads)
            best = _fastest(ways, partial(_time_all, texts)), _fastest(ways, partial(_time_singles, short))
        seconds, labels = _time_all(texts, ways[best[0]])
        single, _ = _time_singles(short, ways[best[1]])
        figures = {"seconds": seconds, "seconds_single": single, "way": best[0], "way_single": best[1]}
        turns.report(figures | {"labels": labels})


def ways_of(name: str, folder: Path, batch_sizes: Sequence[int], max_tokens: int, n_threads: int) -> Ways:
    """The ways to ask a contender, its model loaded."""
    if name == "lightune":
        return _lightune(folder / "run")
    if name == "pipeline":
        return _pipeline(folder / "merged", batch_sizes, max_tokens)
    return _onnx(folder / ONNX[name], folder / "merged", batch_sizes, max_tokens, n_threads)


def _lightune(run: Path) -> Ways:
    import lightune

    classifier = lightune.Classifier.load(run)
    return {"as it is": lambda texts: [answer.label for answer in classifier.predict(texts)]}


def _pipeline(model: Path, batch_sizes: Sequence[int], max_tokens: int) -> Ways:
    import torch
    from transformers import pipeline

    precisions = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if has_fast_bf16() else {})
    ways: Ways = {}
    for words, dtype in precisions.items():
        classify = pipeline("text-classification", model=str(model), dtype=dtype)
        for size in batch_sizes:
            options = {"batch_size": size, "truncation": True, "max_length": max_tokens}
            ways[f"{words}, batches of {size}"] = partial(_labels_of_pipeline, classify, options)
    return ways


def _labels_of_pipeline(classify: Any, options: dict[str, Any], texts: list[str]) -> list[str]:
    return [answer["label"] for answer in classify(texts, **options)]


def _onnx(path: Path, model: Path, batch_sizes: Sequence[int], max_tokens: int, n_threads: int) -> Ways:
    import onnxruntime
    from transformers import AutoConfig, AutoTokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tokenizer, names = AutoTokenizer.from_pretrained(model), AutoConfig.from_pretrained(model).id2label
    ask = partial(_labels_of_onnx, session, tokenizer, names, max_tokens)
    return {f"batches of {size}": partial(ask, size) for size in batch_sizes}


def _labels_of_onnx(
    session: Any, tokenizer: Any, names: dict[int, str], max_tokens: int, size: int, texts: list[str]
) -> list[str]:
    """Tokenised once, sorted by length, padded batch by batch."""
    encoded = tokenizer(texts, truncation=True, max_length=max_tokens)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    order = sorted(range(len(texts)), key=lengths.__getitem__)
    labels = [""] * len(texts)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = tokenizer.pad(
            {key: [values[i] for i in rows] for key, values in encoded.items()}, return_tensors="np"
        )
        (logits,) = session.run(["logits"], dict(batch))  # (B, C)
        for i, best in zip(rows, logits.argmax(axis=1), strict=True):
            labels[i] = names[int(best)]
    return labels


def _fastest(ways: Ways, timed: Callable[..., tuple[float, list[str]]]) -> str:
    return min(ways, key=lambda name: timed(ways[name])[0])


def _time_all(texts: list[str], ask: Callable[[list[str]], list[str]]) -> tuple[float, list[str]]:
    started = time.perf_counter()
    labels = ask(texts)
    return time.perf_counter() - started, labels


def _time_singles(texts: list[str], ask: Callable[[list[str]], list[str]]) -> tuple[float, list[str]]:
    """The median over the texts, each asked alone."""
    timed = [_time_all([text], ask) for text in texts]
    seconds = sorted(seconds for seconds, _ in timed)
    return seconds[len(seconds) // 2], [label for _, labels in timed for label in labels]


if __name__ == "__main__":
    work(*sys.argv[1:])
