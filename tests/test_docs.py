"""The documents are true: generated pages are fresh, shown commands exist and parse, shown Python runs."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import re
import shlex
import shutil
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

from lightune.cli import EXAMPLES
from lightune.comparison.cell_run import Runner
from lightune.records import Proof

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown_commands() -> list[str]:
    """What stands behind a `$` in a console block, and what stands in backquotes and starts with `lightune`."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```console\n(.*?)```", text, re.S):
            found += [line[2:].split("  #")[0].strip() for line in block.splitlines() if line.startswith("$ ")]
        found += re.findall(r"`(lightune [a-z][^`]*)`", re.sub(r"```.*?```", "", text, flags=re.S))
    found += [line.split("   ")[0].strip() for line in EXAMPLES.splitlines() if line.startswith("  lightune")]
    return found


COMMANDS = sorted({command for command in shown_commands() if command.startswith("lightune")})


def test_generated_pages_are_fresh():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.stale_pages() == [], "run: make docs"


def with_pairs(rows: list[list[str]], arguments: list[str]) -> list[list[str]]:
    """The same rows, their text under the name it is asked for by, and a second one beside it."""
    names = [arguments[arguments.index(option) + 1] for option in ("--text", "--pair")]
    place = rows[0].index("text")
    texts = [[row[place], f"why {row[place]}", *row[:place], *row[place + 1 :]] for row in rows[1:]]
    return [[*names, *rows[0][:place], *rows[0][place + 1 :]], *texts]


def prepare(folder: Path, arguments: list[str], reviews: Path, run: str) -> None:
    """Puts there what a shown command names: data files, and the folder of a finished run."""
    with reviews.open(newline="") as file:
        rows = list(csv.reader(file))
    for place, name in enumerate(arguments):
        if Path(name).suffix in (".csv", ".tsv") and arguments[place - 1] != "-o":
            # a test file shares no text with the training file
            remark = "" if arguments[place - 1] != "--test" else " indeed"
            rows = with_pairs(rows, arguments) if "--pair" in arguments else rows
            with (folder / name).open("w", newline="") as file:
                writer = csv.writer(file, delimiter="\t" if name.endswith(".tsv") else ",")
                writer.writerows([rows[0], *([row[0] + remark, *row[1:]] for row in rows[1:])])
        if name.endswith(".csv.gz"):
            (folder / name).write_bytes(gzip.compress(reviews.read_bytes()))
        if name.startswith("runs/") and arguments[0] != "run":
            shutil.copytree(run, folder / name)


def shorten(arguments: list[str], model: Path) -> None:
    """A comparison of the shown shape with a model and numbers of rows of test size."""
    for option, value in (("--models", str(model)), ("--sizes", "50,100,all")):
        if option in arguments:
            arguments[arguments.index(option) + 1] = value
    arguments += ["--set", f"model={model}", "--set", "data.max_tokens=32"]


def put_run(words: list[str], run: str) -> str:
    """A finished run where a process would have made one; nothing for a search."""
    if words[0] == "run":
        shutil.copytree(run, words[words.index("--output") + 1])
    return ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_shown_command_does_what_it_says(command, tiny_run, tiny_bert, reviews, tmp_path, monkeypatch):
    """Run as it stands, but for a model and numbers of rows of test size."""
    from lightune.cli import main

    arguments = shlex.split(command)[1:]
    if "amazon-distilbert" in arguments:
        pytest.skip("run in test_hub_run.py, where there is a Hub")
    if "--help" in arguments:
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        return
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path, arguments, reviews, tiny_run.folder)
    if arguments[0] in ("run", "tune"):
        sizes = [
            f"model={tiny_bert}",
            "data.max_tokens=32",
            "train.max_tokens=auto",
            "train.epochs=1",
            "train.layers=all",
        ]
        embedded = ["data.train_rows=40", "data.dev_rows=20", "data.test_rows=20"]
        on_reviews = any(argument.startswith("imdb") for argument in arguments) or len(arguments) == 1
        for setting in sizes + embedded * on_reviews:
            arguments += ["--set", setting]
    if arguments[0] == "tune":
        arguments += [
            "--trials",
            "2",
            *("--set", "search.rows=20"),
            *("--set", "search.fresh_seeds=1"),
            "--no-baselines",
        ]
        # the proof of each run, in a fresh process, is that of `run`
        monkeypatch.setattr(sys.modules["lightune.run"], "prove", lambda *args, **more: Proof(32, 0.0, 1e-4, True))
    if arguments[0] == "compare":
        shorten(arguments, tiny_bert)
        # each run is `run` in a process of its own, tested there: here a finished one takes its place
        monkeypatch.setattr(Runner, "_call", lambda self, cell, words, *more: put_run(words, tiny_run.folder))
    if arguments[0] == "check":
        arguments += ["--model", str(tiny_bert)]
    if arguments[0] in ("evaluate", "predict", "explain"):
        arguments += ["--base", str(tiny_bert)]  # the run was copied away from it
    assert main(arguments) == 0
    if arguments[0] == "run" and "--dry-run" not in arguments:
        run = next((tmp_path / "runs").iterdir())
        assert (run / "results.json").is_file()
    if arguments[0] == "compare":
        assert "Verdict" in next((tmp_path / "runs").glob("*-compare/compare.html")).read_text()
    if arguments[0] == "tune":
        search = next((tmp_path / "runs").iterdir())
        assert (search / "search.json").is_file()
        assert (search / "best.toml").is_file()
    if "-o" in arguments:
        assert (tmp_path / arguments[arguments.index("-o") + 1]).stat().st_size


def test_the_shown_installation_names_what_there_is():
    extras = set(metadata("lightune").get_all("Provides-Extra"))
    for command in shown_commands():
        if command.startswith("pip install"):
            (names,) = re.findall(r"\.\[([a-z,]+)\]", command)
            assert set(names.split(",")) <= extras


def test_the_demo_is_the_shown_run():
    makefile = (ROOT / "Makefile").read_text()
    assert "lightune run" in COMMANDS
    shown = r"lightune run --time-budget 8m --output runs/demo --overwrite"
    assert re.search(rf"^demo:.*\n\t\$\(BIN\)/{shown}$", makefile, re.M)


def test_every_shown_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    shown = re.findall(r"(?:`|^\$ )make ([a-z-]+)", "\n".join(page.read_text() for page in PAGES), re.M)
    assert {"demo", "test"} <= set(shown)
    for target in shown:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_ci_calls_the_readmes_test_command_and_nothing_more():
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]


def test_the_readmes_python_runs(reviews, tiny_bert, tmp_path, monkeypatch, capsys):
    import lightune

    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_bytes(reviews.read_bytes())
    plain = lightune.run
    # the shown lines, with a model of test size
    monkeypatch.setattr(
        lightune, "run", lambda data: plain(data, settings=[f'model="{tiny_bert}"', "train.epochs=1"])
    )
    exec(README.split("```python")[1].split("```")[0], {})
    assert "Prediction(label=" in capsys.readouterr().out
    assert (tmp_path / "runs" / "reviews-lora" / "adapter").is_dir()


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"
