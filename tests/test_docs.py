"""The documents are true: generated pages are fresh, shown commands exist and parse, shown Python runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from lightune.cli import build_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown_commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            found += [line[2:].split("  #")[0].strip() for line in block.splitlines() if line.startswith("$ ")]
    return found


def test_generated_pages_are_fresh():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.stale_pages() == [], "run: make docs"


@pytest.mark.parametrize("command", sorted({c for c in shown_commands() if c.startswith("lightune")}))
def test_every_shown_command_parses(command):
    arguments = shlex.split(command)[1:]
    assert build_parser().parse_args(arguments).call


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
