"""The same job by other means, each as its documentation shows it; every function trains, saves and returns answers.

`python benchmarks/peers.py NAME MODEL TRAIN.csv TEST.csv FOLDER [EPOCHS]` prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_TOKENS = 512
BATCH = 16
RATE = {"adapter": 1e-3, "full": 5e-5}  # the usual ones; 1e-3 is what tutorials of LoRA for classification take


@dataclass(frozen=True)
class Rows:
    """Texts with class ids."""

    texts: list[str]
    y: list[int]


@dataclass(frozen=True)
class Trained:
    """A model that was trained and saved. answers: class ids of given texts; tokens: of one pass over the rows."""

    answers: Callable[[list[str]], Sequence[int]]
    tokens: int


def tutorial(model: str, rows: Rows, folder: Path, epochs: float = 1, callbacks: Sequence[Any] = ()) -> Trained:
    """Trainer and PEFT as everybody copies them: padded to the maximum, texts in random order, dropout on."""
    from transformers import AutoTokenizer, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(model)
    data = _dataset(
        rows, lambda texts: tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_TOKENS)
    )
    network = _with_lora(_classifier(model))
    arguments = TrainingArguments(
        str(folder / "trainer"),
        learning_rate=RATE["adapter"],
        per_device_train_batch_size=BATCH,
        num_train_epochs=epochs,
        weight_decay=0.01,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(network, arguments, train_dataset=data, processing_class=tokenizer, callbacks=list(callbacks))
    trainer.train()
    network.save_pretrained(folder)
    return Trained(_answers_of(trainer, tokenizer, padding="max_length"), sum(map(sum, data["attention_mask"])))


def best_stock(model: str, rows: Rows, folder: Path, epochs: float = 1, callbacks: Sequence[Any] = ()) -> Trained:
    """The Trainer of the well informed: groups of like length, dynamic padding, bf16 where it is fast."""
    return _stock(_with_lora(_classifier(model)), RATE["adapter"], model, rows, folder, epochs, callbacks)


def full(model: str, rows: Rows, folder: Path, epochs: float = 1, callbacks: Sequence[Any] = ()) -> Trained:
    """All weights trained, by the best stock settings."""
    return _stock(_classifier(model), RATE["full"], model, rows, folder, epochs, callbacks)


def tfidf(model: str, rows: Rows, folder: Path, epochs: float = 1, callbacks: Sequence[Any] = ()) -> Trained:
    """TF-IDF of words and word pairs with logistic regression; no network."""
    import joblib
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    classifier = make_pipeline(vectorizer, LogisticRegression(C=10.0, max_iter=1000))
    classifier.fit(rows.texts, rows.y)
    joblib.dump(classifier, folder / "tfidf.joblib")
    return Trained(classifier.predict, sum(len(text.split()) for text in rows.texts))


PEERS = {"tutorial": tutorial, "best stock": best_stock, "full": full, "tfidf": tfidf}


def _stock(
    network: Any, rate: float, model: str, rows: Rows, folder: Path, epochs: float, callbacks: Sequence[Any]
) -> Trained:
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(model)
    data = _dataset(rows, lambda texts: tokenizer(texts, truncation=True, max_length=MAX_TOKENS))
    arguments = TrainingArguments(
        str(folder / "trainer"),
        learning_rate=rate,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        num_train_epochs=epochs,
        weight_decay=0.01,
        warmup_steps=0.06,
        train_sampling_strategy="group_by_length",
        bf16=has_fast_bf16(),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        network,
        arguments,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.train()
    network.save_pretrained(folder)
    return Trained(_answers_of(trainer, tokenizer, padding=False), sum(map(len, data["input_ids"])))


def has_fast_bf16() -> bool:
    """Whether this machine multiplies bf16 faster than fp32."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _classifier(model: str) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)


def _with_lora(network: Any) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    targets = ["q_lin", "v_lin"] if network.config.model_type == "distilbert" else ["query", "value"]
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16, lora_dropout=0.1, target_modules=targets)
    return get_peft_model(network, config)


def _dataset(rows: Rows, tokenise: Callable[[list[str]], Any]) -> Any:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    data = Dataset.from_dict({"text": rows.texts, "label": rows.y})
    return data.map(lambda batch: tokenise(batch["text"]), batched=True, remove_columns=["text"])


def _answers_of(trainer: Any, tokenizer: Any, padding: str | bool) -> Callable[[list[str]], Sequence[int]]:
    def answers(texts: list[str]) -> Sequence[int]:
        rows = Rows(texts, [0] * len(texts))
        data = _dataset(rows, lambda t: tokenizer(t, padding=padding, truncation=True, max_length=MAX_TOKENS))
        return trainer.predict(data).predictions.argmax(-1).tolist()  # type: ignore[no-any-return]

    return answers


def read_rows(path: Path) -> Rows:
    """Rows of a CSV file with the columns text and label, 0 or 1."""
    import pandas as pd

    table = pd.read_csv(path)
    return Rows(table["text"].tolist(), table["label"].tolist())


def main(name: str, model: str, train: str, test: str, folder: str, epochs: str = "1") -> None:
    """From raw text to a saved model, and then its answers on the test rows, which are not timed."""
    import resource

    started = time.perf_counter()
    trained = PEERS[name](model, read_rows(Path(train)), Path(folder), float(epochs))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rows = read_rows(Path(test))
    right = [int(got == wanted) for got, wanted in zip(trained.answers(rows.texts), rows.y, strict=True)]
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "right": right}))


if __name__ == "__main__":
    main(*sys.argv[1:])
