"""The same job by other means, each as its documentation shows it; every function trains, saves and can then answer.

`python benchmarks/peers.py NAME JOB TEST.csv` reports when the model is saved, and then what it answers right.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import turns
from setting import RATE, Job, Rows, attention_targets, has_fast_bf16, read_rows

Answers = Callable[[list[str]], Sequence[int]]  # class ids of given texts
GROUPED_STEPS = 50  # whose rows are sorted by length together: the sampler's own number where rows are many


def tutorial(job: Job, callbacks: Sequence[Any] = ()) -> Answers:
    """Trainer and PEFT as everybody copies them: padded to the maximum, texts in random order, dropout on."""
    from transformers import AutoTokenizer, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(job.model)
    data = _dataset(read_rows(job.rows), tokenizer, job, padding="max_length")
    network = _with_lora(_classifier(job), job)
    arguments = TrainingArguments(
        f"{job.folder}/trainer",
        learning_rate=RATE["adapter"],
        per_device_train_batch_size=job.batch_size,
        num_train_epochs=job.epochs,
        weight_decay=0.01,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(network, arguments, train_dataset=data, processing_class=tokenizer, callbacks=list(callbacks))
    trainer.train()
    network.save_pretrained(job.folder)
    return _answers_of(trainer, tokenizer, job, padding="max_length")


def best_stock(job: Job, callbacks: Sequence[Any] = ()) -> Answers:
    """The Trainer of the well informed: groups of like length, dynamic padding, bf16 where it is fast."""
    return _stock(_with_lora(_fast_classifier(job), job), RATE["adapter"], job, callbacks)


def full(job: Job, callbacks: Sequence[Any] = ()) -> Answers:
    """All weights trained, by the best stock settings."""
    return _stock(_fast_classifier(job), RATE["full"], job, callbacks)


def tfidf(job: Job, callbacks: Sequence[Any] = ()) -> Answers:
    """TF-IDF of words and word pairs with logistic regression; no network."""
    import joblib
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = read_rows(job.rows)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    classifier = make_pipeline(vectorizer, LogisticRegression(C=10.0, max_iter=1000))
    classifier.fit(rows.texts, rows.y)
    joblib.dump(classifier, f"{job.folder}/tfidf.joblib")
    return lambda texts: classifier.predict(texts).tolist()


PEERS = {"tutorial": tutorial, "best stock": best_stock, "full": full, "tfidf": tfidf}


def _stock(network: Any, rate: float, job: Job, callbacks: Sequence[Any]) -> Answers:
    import torch
    from transformers import AutoTokenizer, DataCollatorWithPadding, TrainingArguments

    on_gpu = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    data = _dataset(read_rows(job.rows), tokenizer, job, padding=False)
    arguments = TrainingArguments(
        f"{job.folder}/trainer",
        learning_rate=rate,
        per_device_train_batch_size=job.batch_size,
        num_train_epochs=job.epochs,
        weight_decay=0.01,
        warmup_steps=0.06,
        train_sampling_strategy="group_by_length",
        bf16=has_fast_bf16(),
        use_cpu=not on_gpu,  # without it bf16 is refused where there is no GPU
        dataloader_num_workers=2 if on_gpu else 0,  # a GPU would wait for the padding; two cores have none to spare
        dataloader_persistent_workers=on_gpu,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = _grouping_trainer()(
        network,
        arguments,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8),
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.train()
    network.save_pretrained(job.folder)
    return _answers_of(trainer, tokenizer, job, padding=False)


def _grouping_trainer() -> type[Any]:
    """The Trainer, which groups texts by length also where they are few.

    Stock sorts the rows of min(50, rows // (4 * batch)) steps together, which below 128 rows in batches of 16 is one
    step, so no grouping at all: 52 % of the tokens of 96 reviews are useful then, 53 % padded to 512, 89 % here.
    From 3,200 rows on it is the same as stock.
    """
    from transformers import Trainer
    from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

    class Grouped(LengthGroupedSampler):  # type: ignore[misc]
        def __iter__(self) -> Any:
            return iter(get_length_grouped_indices(self.lengths, self.batch_size, GROUPED_STEPS, self.generator))

    class GroupingTrainer(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            stock = super()._get_train_sampler(train_dataset)
            return Grouped(stock.batch_size, lengths=stock.lengths, generator=stock.generator)

    return GroupingTrainer


def _classifier(job: Job, **options: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(job.model, num_labels=2, **options)


def _fast_classifier(job: Job) -> Any:
    """With the faster of the two attentions: on a CPU with bf16 the plain one, since dropout denies the fused one.

    A step of 16 x 224 tokens took 1.78 s so and 2.47 s with "sdpa"; in fp32 3.45 s and 3.29 s.
    """
    import torch

    plain = has_fast_bf16() and not torch.cuda.is_available()
    return _classifier(job, attn_implementation="eager" if plain else "sdpa")


def _with_lora(network: Any, job: Job, rank: int = 8) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    targets = attention_targets(job.model)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=2 * rank, lora_dropout=0.1, target_modules=targets
    )
    return get_peft_model(network, config)


def _dataset(rows: Rows, tokenizer: Any, job: Job, padding: str | bool) -> Any:
    from datasets import Dataset, disable_progress_bars

    def tokenise(batch: Any) -> Any:
        return tokenizer(batch["text"], padding=padding, truncation=True, max_length=job.max_tokens)

    disable_progress_bars()
    data = Dataset.from_dict({"text": rows.texts, "label": rows.y})
    return data.map(tokenise, batched=True, remove_columns=["text"])


def _answers_of(trainer: Any, tokenizer: Any, job: Job, padding: str | bool) -> Answers:
    def answers(texts: list[str]) -> Sequence[int]:
        data = _dataset(Rows(texts, [0] * len(texts)), tokenizer, job, padding)
        trainer.args.train_sampling_strategy = "sequential"  # else the answers come grouped by length
        return trainer.predict(data).predictions.argmax(-1).tolist()  # type: ignore[no-any-return]

    return answers


def main(name: str, word: str, test: str) -> None:
    """From raw text to a saved model, and then its answers on the test rows, which come after the clock."""
    job = Job.of(word)
    answers = PEERS[name](job)
    turns.report({"peak_bytes": turns.peak_bytes()})
    rows = read_rows(test)
    turns.report({"right": [int(got == y) for got, y in zip(answers(rows.texts), rows.y, strict=True)]})


if __name__ == "__main__":
    main(*sys.argv[1:])
