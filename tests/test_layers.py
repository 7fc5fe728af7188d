"""The shape of the house: imports go down the floors, wings do not know each other, heavy imports wait."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import lightune
from lightune.recipe import Checked, Recipe, flatten
from lightune.settings import load_recipe

SOURCE = Path(lightune.__file__).parent
FLOORS = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"tune", "compare"},
    {"run", "checkup", "reporting"},
    {"use"},
    {"report"},
    {"comparison"},
    {"search"},
    {"training"},
    {"artifact"},
    {"doctor"},
    {"evidence"},
    {"model"},
    {"data"},
    {"trackers", "settings"},
    {"destination", "journal", "recipe", "hardware", "libraries"},
    {"callable", "errors", "legible", "records"},
]
HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets", "evaluate", "sklearn", "scipy", "matplotlib"}
HEAVY |= {"pandas", "pyarrow", "huggingface_hub", "optuna", "sqlalchemy"}
FILES = sorted(SOURCE.rglob("*.py"))


def floor(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0].removesuffix(".py")


def imported(path: Path) -> list[str]:
    """Every lightune module a file imports, in functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lightune":
            names = [alias.name for alias in node.names] if node.module == "lightune" else [node.module.split(".")[1]]
            found += [name for name in names if name != "__version__"]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path):
    if path == SOURCE / "__init__.py":
        return
    own = room_of(path)
    for other in imported(path):
        assert other == own or floor(other) > floor(own), f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_heavy_libraries_are_imported_inside_functions(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {name.split(".")[0] for name in names} & HEAVY


def test_no_file_trusts_remote_code():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = ast.unparse(node.func.value)
            if node.func.attr == "from_pretrained" and owner.startswith("Auto"):
                values = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert values.get("trust_remote_code") == "False", f"{path.name}: {ast.unparse(node)[:80]}"


class Watched:
    """A recipe, or a table of it, that notes which of its fields were read."""

    def __init__(self, section: Any, seen: set[str], prefix: str = ""):
        self._section, self._seen, self._prefix = section, seen, prefix

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._section, name)
        if name in type(self._section).model_fields:
            self._seen.add(f"{self._prefix}{name}")
        return Watched(value, self._seen, f"{self._prefix}{name}.") if isinstance(value, BaseModel) else value


def test_every_field_of_the_recipe_is_read_on_the_journey(reviews, tiny_bert, tmp_path, journal):
    from lightune.run import follow

    # the last steps are on whole texts only if the others are not, and patience counts only if there are two
    settings = ["train.epochs=1", "data.max_tokens=32", "train.max_tokens=8", "train.evaluations=2"]
    checked = load_recipe(str(reviews), None, [f"model={tiny_bert}", *settings])
    seen: set[str] = set()
    watched = Checked(Watched(checked.recipe, seen), checked.origins, checked.name)
    follow(watched, journal, output=str(tmp_path / "run"))
    assert set(flatten(Recipe().model_dump())) - seen == set()


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["run", "--tset", "x"], 2)])
def test_help_and_a_wrong_option_answer_at_once_without_torch(arguments, code):
    script = (
        "import sys; from lightune.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'pydantic', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    times = []
    for _ in range(3):
        started = time.perf_counter()
        process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - started)
    assert process.returncode == code, process.stderr
    assert min(times) < 0.6  # 0.3 s on an idle machine; docs/results.md has the measured figure


def test_importing_the_package_loads_no_heavy_library():
    script = (
        "import sys, lightune\n"
        "found = {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
