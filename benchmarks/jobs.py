"""Whole jobs, from a CSV of raw text to a saved model, with accuracy on the same held-out rows.

Each contender is a process; its seconds start before Python does. A peer's end when its model is saved. lightune's
are those of the command `lightune run`, which also evaluates before and after, proves the adapter in a fresh process,
draws the report, looks for faults in the data and trains baselines: `seconds` counts it all, `seconds_bare` leaves
out what the peers' time has none of, not the proof.

lightune holds back some training rows to choose its best state by; the peers train on all and choose nothing. Tokens
per second are those trained on, over `seconds_bare`, so that loading, tokenising and saving count; of contenders that
read parts of the texts, or have no network, there are none. "of peak" as in steps.py.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import steps
import turns
from setting import RATE, Job, Setting, attention_targets, read_rows, reviews, run_command, token_lengths, write_rows

APART = ("check", "before", "after", "baselines", "labels", "report")  # phases of a run that no peer has
PEERS = ("tutorial", "best stock", "full", "tfidf")
LESS = "lightune, less to read"
CONTENDERS = (*PEERS, "lightune", LESS)
# The cheapest settings known that reach the tutorial's accuracy; choose them with --tuning, on rows of no race
LESS_TO_READ: dict[str, Any] = {
    "data.max_tokens": 256,
    "train.max_tokens": 64,
    "train.whole_steps": 0.2,
    "train.layers": 3,
    "train.learning_rate": 2e-3,
    "train.batch_size": 16,
    "train.epochs": 1.0,
}


def measure(setting: Setting) -> dict[str, Any]:
    """Every contender once a round; medians of the seconds."""
    sizes = setting.sizes
    train, test = reviews(sizes.train_rows, sizes.test_rows, tuning=setting.tuning)
    paths = [write_rows(setting.folder / f"{name}.csv", rows) for name, rows in (("train", train), ("test", test))]
    job = Job(setting.model, str(paths[0]), str(setting.folder), sizes.max_tokens)
    return race(job, paths[1], len(train.y), setting.of(CONTENDERS), sizes.job_rounds)


def race(job: Job, test: Path, n_rows: int, names: Sequence[str], n_rounds: int) -> dict[str, Any]:
    """Figures of each contender; n_rows: of the training file."""
    runs = contenders(job, test, n_rows)
    measured: dict[str, list[turns.Turn]] = {name: [] for name in names}
    peaks = []
    for number in range(1, n_rounds + 1):
        peaks.append(steps.matrix_peak(job))
        for name in names:
            measured[name].append(runs[name]())
            turns.say(f"round {number}", name, measured[name][-1])
    peak = statistics.median(peaks)
    lengths = token_lengths(job.model, read_rows(job.rows).texts, job.max_tokens)
    figures = {name: _medians(done) for name, done in measured.items()}
    figures = {name: done | _speed(name, done["seconds_bare"], job, lengths, peak) for name, done in figures.items()}
    return {"contenders": figures, "matrix_peak_flops": peak}


def _speed(name: str, seconds: float, job: Job, lengths: list[int], peak: float) -> dict[str, float | None]:
    """None for who reads parts of the texts, or has no network."""
    if name in ("tfidf", LESS):
        return {"tokens_per_second": None, "of_peak": None}
    share = 1 - _dev_rows(len(lengths)) / len(lengths) if name == "lightune" else 1.0
    speed = job.epochs * share * sum(lengths) / seconds
    flops = steps.flops_per_token(job.model, lengths, all_weights=name == "full")
    return {"tokens_per_second": speed, "of_peak": speed * flops / peak}


def _dev_rows(n_rows: int) -> int:
    return max(2, min(100, n_rows // 10))


def contenders(job: Job, test: Path, n_rows: int) -> dict[str, Callable[[], turns.Turn]]:
    """Name -> one whole job of it."""
    runs: dict[str, Callable[[], turns.Turn]] = {name: partial(run_peer, name, job, test) for name in PEERS}
    dev = {"data.dev_rows": _dev_rows(n_rows)}
    for name, settings in (("lightune", as_the_tutorial(job)), (LESS, LESS_TO_READ)):
        runs[name] = partial(run_lightune, job, test, {**settings, **dev})
    return runs


def as_the_tutorial(job: Job) -> dict[str, Any]:
    """The tutorial's training in the words of a recipe."""
    return {
        "data.max_tokens": job.max_tokens,
        "data.truncation": "head",
        "method.targets": attention_targets(job.model),
        "train.learning_rate": RATE["adapter"],
        "train.batch_size": job.batch_size,
        "train.epochs": job.epochs,
    }


def run_peer(name: str, job: Job, test: Path) -> turns.Turn:
    """Its time ends with the first report, that the model is saved."""
    command = [str(Path(__file__).with_name("peers.py")), name, job.word(), str(test)]
    (seconds, saved), (_, scored) = turns.finish(command).reports
    return {
        "seconds": seconds,
        "seconds_bare": seconds,
        **saved,
        **_accuracy(sum(scored["right"]), len(scored["right"])),
    }


def run_lightune(job: Job, test: Path, settings: Mapping[str, Any]) -> turns.Turn:
    """The command line, with everything a run does."""
    done, results = run(job.model, Path(job.rows), test, Path(job.folder, "run"), settings)
    apart = sum(results["seconds"].get(phase, 0.0) for phase in APART)
    cells = results["confusion"]["after"]
    right = sum(row[i] for i, row in enumerate(cells))
    figures = {"seconds": done.seconds, "seconds_bare": done.seconds - apart, "peak_bytes": done.peak_bytes}
    return {**figures, **_accuracy(right, sum(map(sum, cells)))}


def run(
    model: str, rows: Path, test: Path, output: Path, settings: Mapping[str, Any]
) -> tuple[turns.Finished, dict[str, Any]]:
    """`lightune run` on all rows of two files, and its results.json."""
    wanted = {"model": model, "data.train_rows": "all", "data.test_rows": "all", **settings}
    words = [f"{key}={json.dumps(value)}" for key, value in wanted.items()]
    done = turns.finish(run_command(rows, output, words, "--test", str(test)))
    return done, json.loads((output / "results.json").read_text(encoding="utf-8"))


def _accuracy(n_right: int, n_rows: int) -> dict[str, float]:
    from lightune.evidence.statistics import wilson

    low, high = wilson(n_right, n_rows)
    return {"accuracy": n_right / n_rows, "low": low, "high": high}


def _medians(done: Sequence[turns.Turn]) -> dict[str, Any]:
    """Of the times and the memory; the accuracy is the first round's, the others repeat its seed."""
    return done[0] | {key: turns.median(done, key) for key in ("seconds", "seconds_bare", "peak_bytes")}
