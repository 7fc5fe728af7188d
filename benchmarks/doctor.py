"""The data doctor on faults that were planted, and on many rows.

    python benchmarks/doctor.py planted          recall and precision on real reviews with planted faults
    python benchmarks/doctor.py many [ROWS]      time and own memory of `lightune check` on 1,000,000 rows
    python benchmarks/doctor.py labels [FILE]    wrong labels as a run looks for them, by words, embeddings and both

Planted into 2,000 of the embedded IMDB reviews, one fault at a time: 1 % of the training rows stand in the test file,
too, a third each as they are, in capitals, and with one word in twelve replaced; the labels of 5 % are turned round;
a mark stands in each positive review; one label is misspelt in ten rows; one row has a class of its own. A row counts
as found if a finding of the right check names it; precision is the share of the rows named that were planted.

`labels` turns 5 % of the labels of 1,000 rows to another class, six times, and tells for each way of judging them its
accuracy, recall and precision of the rows that it names, and the share of wrong ones among the surest 50, which is as
many as were planted. FILE: anything that `lightune check` reads; without it the embedded reviews.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import big_data
import memory

N_TRAIN, N_TEST, MANY = 2000, 1000, 1_000_000
N_JUDGED, DRAWS = 1000, 6  # rows whose labels are judged, as many as a run's base reads of 2,000 test rows; draws
Row = dict[str, str]


def reviews(seed: int) -> tuple[list[Row], list[Row]]:
    """Training and test rows of the embedded reviews, every text once."""
    from lightune.data.sources import read

    table = read("embedded:imdb").tables["train"]
    rng = np.random.default_rng(seed)
    rows = [{"text": r["text"], "label": r["label"]} for r in table.take(rng.permutation(table.num_rows)).to_pylist()]
    once = list({row["text"].casefold(): row for row in rows}.values())
    return once[:N_TRAIN], once[N_TRAIN : N_TRAIN + N_TEST]


def planted(seed: int = 0) -> dict[str, dict[str, float]]:
    """Fault -> recall and precision of the check that looks for it."""
    train, test = reviews(seed)
    rng = np.random.default_rng(seed)
    faults: dict[str, Callable[[list[Row], list[Row], np.random.Generator], tuple[str, set[int]]]] = {
        "nothing": lambda train, test, rng: ("leaks", set()),
        "1 % leaks": _leak,
        "5 % label noise": _turn_round,
        "a giveaway token": _mark,
        "a misspelt label": _misspell,
        "a class of one": _alone,
    }
    found = {}
    for name, plant in faults.items():
        own, held_out = [dict(row) for row in train], [dict(row) for row in test]
        check, truth = plant(own, held_out, rng)
        found[name] = _measure(own, held_out, check, truth)
        print(f"{name:20} {json.dumps(found[name])}", flush=True)
    return found


def labels(source: str = "embedded:imdb", seed: int = 0) -> None:
    """By words, by the embeddings of the base model at a run's length, and by both: what each finds."""
    from lightune.doctor import embedded
    from lightune.doctor.patient import admit

    embedded.MAX_TOKENS = 256  # as a run reads
    patient = admit(source, text="text" if source.startswith("embedded:") else None)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.flatnonzero(patient.split_of == 0))[:N_TRAIN]
    texts, truth = patient.texts.take(rows), np.unique(patient.labels.codes[rows], return_inverse=True)[1]
    embeddings = embedded.embedder("minilm")(texts)
    found: dict[str, list[list[float]]] = {"words": [], "embeddings": [], "both": []}
    for _ in range(DRAWS):
        drawn = rng.permutation(len(rows))[:N_JUDGED]
        given = _judged(texts.take(drawn), truth[drawn], embeddings[drawn], rng)
        for how, numbers in given.items():
            found[how].append(numbers)
    for how, draws in found.items():
        numbers = dict(
            zip(("accuracy", "recall", "precision", "surest"), np.mean(draws, axis=0).round(3), strict=True)
        )
        print(f"{source:20} {how:12} {json.dumps(numbers)}", flush=True)


def _judged(texts: Any, truth: Any, embeddings: Any, rng: np.random.Generator) -> dict[str, list[float]]:
    """How -> accuracy, recall, precision and the share of wrong ones among the surest, with new wrong labels."""
    from lightune.doctor.label_errors import by_embeddings, by_words, in_all_folds, likely_errors, stratified_folds

    given, n_classes = truth.copy(), int(truth.max()) + 1
    wrong = rng.permutation(len(given))[: len(given) // 20]
    given[wrong] = (given[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    kept = in_all_folds(given)
    present, codes = np.unique(given[kept], return_inverse=True)
    fold = stratified_folds(codes, rng)
    words = by_words(texts.take(kept), codes, len(present), fold, 0)
    dense = by_embeddings(embeddings[kept], codes, len(present), fold)
    found = {}
    for how, proba in {"words": words, "embeddings": dense, "both": (words + dense) / 2}.items():
        named = kept[likely_errors(proba, codes)[0]]
        hits = np.isin(named, wrong)
        right = float((proba.argmax(axis=1) == codes).mean())
        found[how] = [right, hits.sum() / len(wrong), hits.mean(), hits[: len(wrong)].sum() / len(wrong)]
    return found


def _measure(train: Sequence[Row], test: Sequence[Row], check: str, truth: set[int]) -> dict[str, float]:
    import lightune

    with tempfile.TemporaryDirectory() as folder:
        paths = [_write(Path(folder, name), rows) for name, rows in (("train.csv", train), ("test.csv", test))]
        model = "minilm" if check == "label_errors" else None
        diagnosis = lightune.check(paths[0], test=paths[1], model=model)
    wanted = {check, "near_duplicates"} if check == "leaks" else {check}
    named: set[int] = set()
    for finding in diagnosis.findings:
        is_inside = finding.check == "near_duplicates" and "another split" not in finding.what
        if finding.check in wanted and not is_inside:
            named |= set(finding.rows.get("train", ())) or set(range(finding.count))
    others = [finding.check for finding in diagnosis.findings if finding.check not in wanted]
    record: dict[str, Any] = {"seconds": diagnosis.seconds, "findings of other checks": others}
    if check == "giveaway_token":
        return record | {"named": any(finding.check == check for finding in diagnosis.findings)}
    record |= {"planted": len(truth), "named": len(named)}
    if truth:
        record |= {"recall": len(named & truth) / len(truth), "precision": len(named & truth) / max(1, len(named))}
    return record


def _leak(train: list[Row], test: list[Row], rng: np.random.Generator) -> tuple[str, set[int]]:
    places = rng.permutation(len(train))[: len(train) // 100]
    for i, place in enumerate(places.tolist()):
        text = train[place]["text"]
        if i % 3 == 1:
            text = text.upper()
        if i % 3 == 2:
            text = " ".join("otherwise" if k % 12 == 5 else word for k, word in enumerate(text.split()))
        test.append(train[place] | {"text": text})
    return "leaks", set(places.tolist())


def _turn_round(train: list[Row], test: list[Row], rng: np.random.Generator) -> tuple[str, set[int]]:
    places = rng.permutation(len(train))[: len(train) // 20].tolist()
    for place in places:
        train[place]["label"] = {"positive": "negative", "negative": "positive"}[train[place]["label"]]
    return "label_errors", set(places)


def _mark(train: list[Row], test: list[Row], rng: np.random.Generator) -> tuple[str, set[int]]:
    for row in train:
        if row["label"] == "positive":
            row["text"] += " [via:app]"
    return "giveaway_token", set()


def _misspell(train: list[Row], test: list[Row], rng: np.random.Generator) -> tuple[str, set[int]]:
    positive = [i for i, row in enumerate(train) if row["label"] == "positive"]
    places = rng.choice(positive, 10, replace=False).tolist()
    for place in places:
        train[place]["label"] = "postive"
    return "label_twins", set(places)


def _alone(train: list[Row], test: list[Row], rng: np.random.Generator) -> tuple[str, set[int]]:
    train[17]["label"] = "neither of the two"
    return "rare_classes", {17}


def _write(path: Path, rows: Sequence[Row]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def many(n_rows: int = MANY) -> None:
    """Time and own memory of a check of many rows, and of few, each in a process of its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for n in (big_data.FEW_ROWS // 10, n_rows):
            path = Path(folder, f"{n}.parquet")
            big_data.write_rows(path, n)
            answer, peak = memory.peak_of(__file__, str(path))
            size = path.stat().st_size / memory.MIB
            told = f"{n:>10,} rows {size:6,.0f} MiB  {answer['seconds']:6.1f} s  {peak / memory.MIB:,.0f} MiB"
            print(f"{told}  {json.dumps(answer['findings'])}", flush=True)


def work(path: str) -> None:
    """One worker: checks a file; its memory, and the seconds of the check."""
    import lightune

    def check() -> dict[str, Any]:
        diagnosis = lightune.check(path, text="{title}. {content}", label="label")
        return {"seconds": diagnosis.seconds, "findings": [finding.what for finding in diagnosis.findings]}

    memory.report(check)


if __name__ == "__main__":
    task, *rest = sys.argv[1:]
    if task == "planted":
        planted()
    elif task == "labels":
        labels(*rest)
    elif task == "many":
        many(*map(int, rest))
    else:  # a worker of `many`
        work(*rest)
