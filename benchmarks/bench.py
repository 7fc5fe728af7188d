"""lightune against the tutorial, the best of stock, full fine-tuning and TF-IDF; pipeline and ONNX Runtime.

    python benchmarks/bench.py all                  everything, into benchmarks/results/bench.json, .md, .png and .svg
    python benchmarks/bench.py steps                training steps: tokens/s, share of the matrix peak, memory
    python benchmarks/bench.py jobs                 raw text to saved model: accuracy, time, memory
    python benchmarks/bench.py jobs --tuning        the same on the other half of the reviews, to choose settings on
    python benchmarks/bench.py answers              prediction: many texts, and one short text at a time
    python benchmarks/bench.py scaling              training time over 1k, 4k and 16k rows
    python benchmarks/bench.py render               the Markdown and the pictures of figures that are there
    python benchmarks/bench.py all --quick          tens of rows: whether it works, not how fast

Contenders take turns, each in a process of its own, one at work at a time: nothing else should run. A part that is
measured again replaces its figures in the file and leaves the others'; each has its machine and versions beside it.
What is measured how stands at the top of steps.py, jobs.py, answers.py and scaling.py, the peers in peers.py.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import answers
import jobs
import render
import scaling
import steps
from setting import FULL, QUICK, Setting, describe

PARTS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "steps": steps.measure,
    "jobs": jobs.measure,
    "answers": answers.measure,
    "scaling": scaling.measure,
}
MODEL = "minilm"
RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what is asked for and renders the file."""
    arguments = _parser().parse_args(argv)
    path = arguments.results or RESULTS / ("quick.json" if arguments.quick else "bench.json")
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded while a clock runs
    if path.suffix != ".json":
        raise SystemExit(f"{path}: results are kept under a name that ends in .json")
    if arguments.part == "render" and not path.exists():
        raise SystemExit(f"{path}: no such file. Measure something first.")
    wanted = {"all": list(PARTS), "render": []}.get(arguments.part, [arguments.part])
    others = {name: record for name, record in read(path).items() if name not in wanted}
    render.markdown(others, "")  # what cannot be rendered is refused before hours of work
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            sizes = QUICK if arguments.quick else FULL
            only = tuple(arguments.only)
            setting = Setting(_model_folder(arguments.model), sizes, Path(folder), arguments.tuning, only)
            record = measure(name, setting, _command(name, arguments))
        write(path, name, record)
        print(f"\n{render.TITLES[name]}\n\n{render.table(name, record)}", flush=True)
    render.render(path)
    print(f"{path}, and beside it .md, .png and .svg")


def measure(name: str, setting: Setting, command: Sequence[str]) -> dict[str, Any]:
    """The figures of a part, with what they were measured on."""
    figures = PARTS[name](setting)  # first: a process that has not imported torch starts small ones
    return describe(command, setting.sizes) | {"figures": figures}


def read(path: Path) -> dict[str, Any]:
    """The parts that were measured, by their names."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path: Path, name: str, record: dict[str, Any]) -> None:
    """Puts one part into the file, the others stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(read(path) | {name: record}, indent=1) + "\n", encoding="utf-8")


def _model_folder(model: str) -> str:
    from lightune.model.backbones import locate

    return str(locate(model).folder)


def _command(name: str, arguments: argparse.Namespace) -> list[str]:
    flags = [f"--{flag}" for flag in ("quick", "tuning") if getattr(arguments, flag)]
    flags += [f"--only {only!r}" for only in arguments.only]
    flags += [f"--model {arguments.model}"] if arguments.model != MODEL else []
    return ["python", "benchmarks/bench.py", name, *flags]


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("part", choices=["all", *PARTS, "render"], metavar="PART")
    parser.add_argument("--quick", action="store_true", help="tens of rows")
    parser.add_argument("--tuning", action="store_true", help="on the other half of the reviews")
    names = sorted({*steps.CONTENDERS, *jobs.CONTENDERS})
    parser.add_argument(
        "--only", action="append", default=[], choices=names, metavar="NAME", help="not all in steps and jobs"
    )
    parser.add_argument("--model", default=MODEL, help="a BERT or DistilBERT: minilm, a Hub id, a folder")
    parser.add_argument("--results", type=Path, metavar="FILE.json", help="where the figures go")
    return parser


if __name__ == "__main__":
    main()
