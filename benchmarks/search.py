"""The search of lightune against Trainer.hyperparameter_search with Optuna: best dev score over time, from the start.

    python benchmarks/search.py                 20 minutes each, into benchmarks/results/search.json, .md and .png
    python benchmarks/search.py --minutes 1 --quick

The same 1,000 reviews to train on and 300 to score on, the same network, one epoch, 128 tokens. Both may choose the
learning rate (1e-5 to 1e-2), LoRA's rank and the batch size, and the first trial of both has the tutorial's rate,
2e-5; the second of lightune has LoRA's own, which lightune knows and the Trainer does not. The Trainer is the well
informed one of peers.py, its network made anew for each trial as its documentation shows. A score counts from the
moment that its trial is over: accuracy, and the log loss at the temperature that suits best, which both searches
minimise. The clock of each starts with its process; nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peers
import turns
from setting import Job, describe, read_rows, reviews, write_rows

RESULTS = Path(__file__).parent / "results" / "search.json"
START, LOW, HIGH = 2e-5, 1e-5, 1e-2  # learning rates
RANKS, BATCHES = (4, 8, 16), (8, 16, 32)
FULL, QUICK = (1_000, 300), (60, 40)  # training and dev rows
MAX_TOKENS = 128
MOST_TRIALS = 10_000  # more than there is time for

Point = dict[str, float]  # seconds since the start, loss, accuracy


def lightune(folder: Path, model: str, seconds: float) -> list[Point]:
    """The trials of `lightune tune` that came to their end in so many seconds."""
    space = {
        "train.learning_rate": f"{{low={LOW}, high={HIGH}, log=true}}",
        "method.rank": str(list(RANKS)),
        "train.batch_size": str(list(BATCHES)),
    }
    settings = [f"model={model}", f"train.learning_rate={START}", "train.epochs=1", f"data.max_tokens={MAX_TOKENS}"]
    settings += [f"data.{name}_rows={len(read_rows(folder / f'{name}.csv').y)}" for name in ("train", "dev")]
    settings += ["search.rows=" + settings[-2].partition("=")[2], *(f"search.{k}={v}" for k, v in space.items())]
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "lightune", "tune", str(folder / "data"), "--output", str(folder / "search")]
    command += ["--trials", str(MOST_TRIALS), "--no-runs", "--no-baselines", "--offline", *words]
    began = time.time()
    process = subprocess.Popen(command)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()  # what is done is in the study
        process.wait()
    return [point for point in _of_study(folder / "search" / "search.db", began) if point["seconds"] <= seconds]


def _of_study(path: Path, began: float) -> list[Point]:
    import optuna

    study = optuna.load_study(study_name="trials", storage=f"sqlite:///{path}")
    found = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    return [
        {
            "seconds": trial.datetime_complete.timestamp() - began,
            "loss": float(trial.value),
            "accuracy": trial.user_attrs["scores"]["accuracy"],
        }
        for trial in found
    ]


def trainer(folder: Path, model: str, seconds: float) -> list[Point]:
    """The trials of the Trainer's search that came to their end in so many seconds."""
    job = Job(model, str(folder / "train.csv"), str(folder / "trainer"), max_tokens=MAX_TOKENS)
    command = ["benchmarks/search.py", "--work", job.word(), str(folder / "dev.csv"), str(seconds)]
    done = turns.finish(command)
    points = [{"seconds": at, **turn} for at, turn in done.reports]
    return [point for point in points if point["seconds"] <= seconds]


def work(word: str, dev: str, seconds: float) -> None:
    """In a process of its own: the Trainer's search, a report after each trial."""
    from functools import partial

    import optuna
    from transformers import AutoTokenizer, DataCollatorWithPadding, TrainingArguments

    job = Job.of(word)
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    data = {
        name: peers._dataset(read_rows(path), tokenizer, job, False)
        for name, path in (("train", job.rows), ("dev", dev))
    }
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    arguments = TrainingArguments(
        f"{job.folder}/trainer",
        learning_rate=START,
        num_train_epochs=job.epochs,
        weight_decay=0.01,
        warmup_steps=0.06,
        train_sampling_strategy="group_by_length",
        per_device_eval_batch_size=32,
        bf16=peers.has_fast_bf16(),
        use_cpu=True,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    search = peers._grouping_trainer()(
        None,
        arguments,
        model_init=partial(_network, job),
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8),
        train_dataset=data["train"],
        eval_dataset=data["dev"],
        processing_class=tokenizer,
        compute_metrics=_scores,
    )
    storage = f"sqlite:///{job.folder}/trainer.db"
    study = optuna.create_study(study_name="trainer", storage=storage, direction="minimize")
    study.enqueue_trial({"learning_rate": START})
    search.hyperparameter_search(
        hp_space=_space,
        compute_objective=partial(_report, since=time.perf_counter()),
        n_trials=MOST_TRIALS,
        timeout=seconds,
        direction="minimize",
        backend="optuna",
        study_name="trainer",
        storage=storage,
        load_if_exists=True,
    )


def _network(job: Job, trial: Any) -> Any:
    """The base with LoRA of the rank that a trial wants: made before the Trainer asks for the other values."""
    rank = trial.suggest_categorical("rank", list(RANKS)) if trial else RANKS[0]
    return peers._with_lora(peers._fast_classifier(job), job, rank=rank)


def _space(trial: Any) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", LOW, HIGH, log=True),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", list(BATCHES)),
    }


def _scores(predicted: Any) -> Point:
    from lightune.records import UNSCALED
    from lightune.search.bench import lack_of_fit

    logits, y = predicted.predictions.astype("float64"), predicted.label_ids
    return {"fit": lack_of_fit(y, logits, UNSCALED), "accuracy": float((logits.argmax(-1) == y).mean())}


def _report(metrics: Point, since: float) -> float:
    turns.report({"loss": metrics["eval_fit"], "accuracy": metrics["eval_accuracy"]})
    return metrics["eval_fit"]


SEARCHES = {"lightune": lightune, "Trainer.hyperparameter_search": trainer}


def race(minutes: float, sizes: tuple[int, int]) -> dict[str, Any]:
    """Both searches, one after the other, on the same rows: what each had after how long."""
    from lightune.model.backbones import locate

    model = str(locate("minilm").folder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, rows in zip(("train", "dev", "test"), reviews(*sizes, 100, tuning=True), strict=True):
            write_rows(folder / f"{split}.csv", rows)
            for i, (text, y) in enumerate(zip(rows.texts, rows.y, strict=True)):
                place = folder / "data" / split / ("negative", "positive")[y]
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{i}.txt").write_text(text, encoding="utf-8")
        points = {name: search(folder, model, 60 * minutes) for name, search in SEARCHES.items()}
    return {"seconds": 60 * minutes, "rows": list(sizes), "points": points} | summed_up(points, 60 * minutes)


def summed_up(points: dict[str, list[Point]], seconds: float) -> dict[str, Any]:
    """The best of each at quarters of the time, and the best known."""
    every = [point for found in points.values() for point in found]
    quarters = {
        name: [best([p for p in found if p["seconds"] <= part * seconds / 4]) for part in (1, 2, 3, 4)]
        for name, found in points.items()
    }
    return {"quarters": quarters, "best_known": best(every)}


def best(points: Sequence[Point]) -> Point | None:
    """The point with the lowest loss."""
    return min(points, key=lambda point: point["loss"]) if points else None


def markdown(record: dict[str, Any]) -> str:
    """The table: what each had after each quarter of the time."""
    figures = record["figures"]
    minutes = figures["seconds"] / 60
    lines = [
        f"`{record['command']}`, {minutes:g} minutes each, {figures['rows'][0]:,} training and "
        f"{figures['rows'][1]:,} dev rows",
        "",
    ]
    lines += [
        "| search | trials to their end | " + " | ".join(f"{minutes * q / 4:g} min" for q in (1, 2, 3, 4)) + " |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for name, quarters in figures["quarters"].items():
        cells = [f"{q['loss']:.4f}, {q['accuracy']:.3f}" if q else "none" for q in quarters]
        lines.append(f"| {name} | {len(figures['points'][name])} | {' | '.join(cells)} |")
    known = figures["best_known"]
    told = f"; the best known is {known['loss']:.4f}, {known['accuracy']:.3f}" if known else ""
    return "\n".join([*lines, "", f"The lowest dev log loss so far, and the accuracy of that trial{told}.", ""])


def draw(figures: dict[str, Any], path: Path) -> None:
    """Both curves: the lowest loss so far, and its accuracy, over time."""
    from matplotlib.figure import Figure

    from render import INK, OURS, SOFT, THEIRS

    sheet = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    for axes, key, title in zip(
        sheet.subplots(1, 2), ("loss", "accuracy"), ("dev log loss", "dev accuracy"), strict=True
    ):
        for name, found in figures["points"].items():
            lowest = [best(found[: i + 1]) for i in range(len(found))]
            x = [*(p["seconds"] / 60 for p in found), figures["seconds"] / 60]
            y = [*(p[key] for p in lowest if p), lowest[-1][key] if lowest and lowest[-1] else float("nan")]
            look = {"color": OURS, "lw": 2} if name == "lightune" else {"color": THEIRS, "lw": 2}
            axes.step(x[: len(y)], y, where="post", label=name, **look)
            axes.plot(
                [p["seconds"] / 60 for p in found], [p[key] for p in found], ".", color=look["color"], alpha=0.5
            )
        axes.set_title(f"{title} of the best trial so far", loc="left", color=INK, fontsize=11)
        axes.set_xlabel("minutes since the start", color=SOFT)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    sheet.savefig(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Races and writes the figures; in a worker, searches."""
    arguments = _parser().parse_args(argv)
    if arguments.work:
        work(arguments.work[0], arguments.work[1], float(arguments.work[2]))
        return
    figures = race(arguments.minutes, QUICK if arguments.quick else FULL)
    command = [
        "python",
        "benchmarks/search.py",
        "--minutes",
        f"{arguments.minutes:g}",
        *["--quick"] * arguments.quick,
    ]
    record = {**describe(command, Job("", "", "")), "figures": figures}
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    arguments.results.with_suffix(".md").write_text(markdown(record), encoding="utf-8")
    draw(figures, arguments.results.with_suffix(".png"))
    print(markdown(record))


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=20.0, help="of each search")
    parser.add_argument("--quick", action="store_true", help="few rows: whether it works")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE.json", help="where the figures go")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
