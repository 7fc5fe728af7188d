"""Run folders made by hand for the tests of the report pages, and what a page says to a parser."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.test_pictures import results_of

VOID = {"meta", "link", "br", "hr", "img", "input"}


def score(value: float, half: float = 0.015) -> dict[str, float]:
    return {"value": value, "low": round(value - half, 4), "high": round(value + half, 4)}


def measures(accuracy: float) -> dict[str, dict[str, float]]:
    names = {"accuracy": 0, "f1_macro": -0.011, "mcc": -0.1, "roc_auc": 0.03}
    return {name: score(accuracy + by) for name, by in names.items()} | {"log_loss": score(1.1 - accuracy)}


def full_results(labels: list[str], n_test: int) -> dict[str, Any]:
    """What results.json of a whole run holds."""
    results = results_of(labels) | {"format_version": 1, "lightune": "0.1.0", "n_test": n_test, "n_steps": 4}
    titles = {"majority": "the most frequent class", "tfidf": "TF-IDF + logistic regression", "probe": "the probe"}
    results["before"], results["after"] = measures(0.503), measures(0.889)
    results["baselines"] = {
        name: {"title": title, "scores": measures(0.5 + 0.12 * i), "n_train": 4000, "chosen": {}, "seconds": 1.5}
        for i, (name, title) in enumerate(titles.items())
    }
    results["comparisons"] = {
        name: {
            "measure": "accuracy",
            "gain": score(0.051),
            "fixed": 321,
            "broken": 123,
            "p_value": 0.0123,
            "p_adjusted": 0.0369,
            "detectable": 0.021,
            "outcome": "better",
            "words": f"better than {title} by 5.1 points (95 % CI 3.6 to 6.6); by chance once in 30",
        }
        for name, title in ({"before": "the untuned head"} | titles).items()
    }
    return results | {
        "requirements": [
            {"what": "accuracy > tfidf", "passed": True, "why": ""},
            {"what": "f1_macro >= 0.95", "passed": False, "why": "it is 0.8780"},
        ],
        "not_applicable": {},
        "stopped_early": False,
        "estimated_seconds": 412.5,
        "tokens_per_second": {"train": 1877.2, "evaluate": 7337.3},
        "peak_memory_bytes": 1_566_588_928,
        "proof": {"rows": 32, "max_logit_difference": 6.5e-07, "tolerance": 3e-4, "passed": True},
        "data": {
            "source": "/home/ann/customer/reviews.csv",
            "test": None,
            "digest": "9626567f" * 8,
            "test_digest": None,
            "revision": None,
            "text": "text",
            "label": "label",
        },
        "model": {
            "name": "/models/ann/mini",
            "revision": None,
            "digest": "53aa5117" * 8,
            "architecture": "BertModel",
        },
        "decisions": [{"what": "rows", "choice": "25,000", "why": "/home/ann/customer/reviews.csv, split train"}],
        "recipe": {
            "model": "/models/ann/mini",
            "seed": 7,
            "data": {"source": "/home/ann/customer/reviews.csv", "train_rows": 4000},
            "method": {"name": "lora", "rank": 8},
            "train": {"learning_rate": 0.0005, "epochs": 2.0},
        },
    }


def calibration(labels: list[str]) -> dict[str, Any]:
    bins = [
        {"low": i / 10, "high": (i + 1) / 10, "n": 20 * i, "confidence": i / 10 + 0.05, "accuracy": 0.07 + 0.09 * i}
        for i in range(10)
    ]
    both = {"ece": score(0.071), "brier": score(0.093), "log_loss": score(0.302)}
    return {
        "temperature": 1.437,
        "n_dev": 500,
        "uncalibrated": both,
        "calibrated": {name: score(each["value"] / 2, 0.005) for name, each in both.items()},
        "bins": bins,
        "bins_uncalibrated": [each | {"accuracy": each["accuracy"] / 2} for each in bins],
        "goal": {
            "what": "precision >= 0.95",
            "thresholds": {label: 0.83 if i else None for i, label in enumerate(labels)},
            "answered": score(0.734),
            "reached": {label: score(0.957) if i else None for i, label in enumerate(labels)},
        },
        "conformal": {"level": 0.9, "threshold": 0.1234, "covered": score(0.905), "mean_size": 1.21},
    }


def slices(labels: list[str]) -> list[dict[str, Any]]:
    rows = [("length", "at most 20 words"), *(("class", label) for label in labels)]
    outcomes = ["worse", "not distinguishable", "better"]
    return [
        {
            "kind": kind,
            "value": value,
            "n": 100 + i,
            "measure": "accuracy",
            "score": score(0.8 + i / 1000),
            "others": 0.891 if i else None,
            "p_adjusted": 0.0004 if i == 0 else 0.271,
            "outcome": outcomes[i % 3],
        }
        for i, (kind, value) in enumerate(rows)
    ]


DOCTOR = {
    "format_version": 1,
    "findings": [
        {
            "check": "garbage",
            "severity": "note",
            "count": 2,
            "what": "2 texts with hardly a letter",
            "why": "their label cannot follow from the text",
            "do": "look at them",
            "rows": {"train": [3, 17]},
            "fix": None,
        },
        {
            "check": "leaks",
            "severity": "error",
            "count": 12,
            "what": "12 texts of <b>split test</b> are in the training rows",
            "why": "the score is too high",
            "do": "remove them",
            "rows": {"train": list(range(100, 112))},
            "fix": "drop",
        },
    ],
    "left_out": {"label_errors": "on 5,000 rows only"},
}
ENVIRONMENT = {
    "python": "3.11.7",
    "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
    "machine": {"system": "Linux", "cores": 2},
    "hardware": {"device": {"choice": "cpu", "why": "no GPU that torch can use"}, "processor": "AVX2"},
    "seed": 7,
    "digests": {},
    "git_commit": None,
}


def write_folder(folder: Path, labels: list[str], *, more: bool = False, n_test: int = 60, seed: int = 0) -> Path:
    """A folder as a run leaves it, without its adapter; more: with calibration and slices."""
    folder.mkdir(parents=True)
    results = full_results(labels, n_test)
    if more:
        results |= {
            "calibration": calibration(labels),
            "slices": slices(labels),
            "worst_slice": "Short texts are worse.",
        }
    rng = np.random.default_rng(seed)
    true = np.arange(n_test) % len(labels)
    answers = {
        name: np.where(rng.random(n_test) < right, true, rng.integers(0, len(labels), n_test))
        for name, right in {"before": 0.2, "after": 0.8, "majority": 0.1, "tfidf": 0.6, "probe": 0.5}.items()
    }
    sure = rng.uniform(0.6, 0.99, n_test)
    columns: dict[str, Any] = {"row": np.arange(n_test) * 3 + 1000, "label": [labels[i] for i in true]}
    columns |= {name: [labels[i] for i in ids] for name, ids in answers.items()}
    for i, label in enumerate(labels):
        columns[f"p_{label}"] = np.where(answers["after"] == i, sure, (1 - sure) / max(1, len(labels) - 1))
    pq.write_table(pa.table(list(columns.values()), names=list(columns)), folder / "predictions.parquet")
    for name, values in {"results": results, "doctor": DOCTOR, "environment": ENVIRONMENT}.items():
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def change(folder: Path, **values: Any) -> None:
    """Other values in the folder's results.json."""
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


class Reader(HTMLParser):
    """What a page holds: its tags, ids, texts; wrong: what is not balanced."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.wrong: list[str] = []
        self.feed(page)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open and self.open[-1] != "style":
            self.texts.append(" ".join(data.split()))

    def values(self, attribute: str) -> list[str]:
        """The values of an attribute, in the order of the page."""
        return [str(attrs[attribute]) for _, attrs in self.tags if attribute in attrs]

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


def comparison(
    *, model: str = "minilm", sizes: tuple[int, ...] = (100, 1000, 10_000), measure: str = "accuracy"
) -> dict[str, Any]:
    """What compare.json holds of seven methods and two baselines for each number of rows; one could not be run."""
    methods = {"lora": 0.02, "dora": 0.022, "ia3": 0.0, "bitfit": 0.015, "head": -0.05, "prefix": -0.01, "full": 0.03}
    baselines = {"TF-IDF + logistic regression": 0.01, "the most frequent class": -0.3}
    rows: list[dict[str, Any]] = []

    def shown(good: float) -> float:
        return 1 - good if measure == "mae" else good

    for place, size in enumerate(sizes):
        for number, (method, better) in enumerate(methods.items()):
            rows.append(
                {
                    "name": f"{method}-{size}",
                    "method": method,
                    "title": method,
                    "model": model,
                    "size": size,
                    "is_baseline": False,
                    "failed": "",
                    "score": score(shown(0.7 + 0.08 * place + better)),
                    "by_seed": [0.7 + 0.08 * place + better, 0.71 + 0.08 * place + better],
                    "trainable_parameters": 1000 * 7**number,
                    "seconds": 3.5 + 20 * number,
                    "seconds_in_all": 60.0,
                    "peak_memory_bytes": 2**30 + number,
                    "artifact_bytes": 4000 * 7**number,
                    "texts_per_second": 300.0 - number,
                    "learning_rate": 1e-3,
                    "values": {"train.learning_rate": 0.002, "method.rank": 4} if method == "lora" else {},
                }
            )
        for title, better in baselines.items():
            row = {"name": f"{title}-{size}", "method": title, "title": title, "model": model, "size": size}
            row |= {"failed": "", "score": score(shown(0.7 + 0.08 * place + better)), "seconds": 2.0}
            rows.append(row | {"is_baseline": True})
    failed = {
        "name": "oft",
        "method": "oft",
        "title": "oft",
        "model": model,
        "size": sizes[-1],
        "is_baseline": False,
        "score": None,
    }
    tried = [row for row in rows if row["size"] == sizes[-1]]
    pairs = [
        {
            "one": one["name"],
            "other": other["name"],
            "gain": score(abs(shown(one["score"]["value"])) - abs(shown(other["score"]["value"]))),
            "p_value": 0.004,
            "p_adjusted": 0.04 if "head" in (one["method"], other["method"]) else 0.4,
            "fixed": 30,
            "broken": 9,
            "outcome": {one["method"]: "worse", other["method"]: "better"}.get("head", "not distinguishable"),
        }
        for place, one in enumerate(tried)
        for other in tried[place + 1 :]
    ]
    line = [{"size": size, **score(0.7 + 0.04 * i)} for i, size in enumerate((100.0, 1000.0, 10_000.0, 40_000.0))]
    more = [{"size": 20_000, "score": score(0.88), "gain": score(0.012, 0.01)}]
    return {
        "data": "reviews.csv",
        "task": "single_label",
        "measure": measure,
        "has_own_rates": True,
        "asked": {"methods": list(methods), "models": [model], "sizes": list(sizes), "seeds": 2, "tune": 4},
        "time_budget": "2m",
        "n_test": 500,
        "rows": [*rows, failed | {"failed": "its blocks do not divide the width"}],
        "pairs": pairs,
        "fronts": {"trainable_parameters": ["lora-10000", "full-10000"], "seconds": ["lora-10000", "full-10000"]},
        "curves": [
            {
                "title": "lora",
                "is_baseline": False,
                "sizes": list(sizes),
                "now": score(0.868),
                "line": line,
                "more": more,
            }
        ],
        "folder": "reviews-compare",
    }
