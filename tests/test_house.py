"""The rules of the house, over the tree itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qtune.recipe import methods as method_sections
from qtune.recipe import sections
from qtune.recipe.section import Section

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "qtune").rglob("*.py"))
WRITTEN = [
    path
    for folder in ("qtune", "tests", "scripts", "configs", "recipes", ".ci")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file()
    and path.suffix in {"", ".py", ".md", ".yaml", ".toml", ".json", ".sh"}
    and "__pycache__" not in path.parts
]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [path for path in SOURCES if path.stem in drawers]


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_cuda_and_no_assignment_to_foreign_classes_at_import(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign | ast.Expr | ast.AnnAssign):
            assert "torch.cuda" not in ast.unparse(node)
        if isinstance(node, ast.Assign):
            assert not any(isinstance(target, ast.Attribute) for target in node.targets)


def test_no_path_of_a_machine_is_written_down() -> None:
    pattern = re.compile(r"(?<![\w.])/(work|root|home)/")
    own = Path(__file__)
    assert not [_name(p) for p in WRITTEN if p != own and pattern.search(p.read_text())]


def test_no_unfinished_marks() -> None:
    pattern = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|NotImplemented" + r"Error)\b")
    assert not [_name(p) for p in WRITTEN if p.suffix == ".py" and pattern.search(p.read_text())]


def test_the_command_line_starts_without_torch() -> None:
    heavy = ["torch", "transformers", "datasets", "accelerate", "bitsandbytes", "numpy"]
    code = f"import sys, qtune.cli.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_key_of_a_recipe_is_read_somewhere() -> None:
    readers = [path.read_text() for path in SOURCES if path.parent.name != "recipe"]
    kinds = [*vars(sections).values(), *vars(method_sections).values()]
    keys = {
        key
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, Section)
        for key in kind.model_fields
    }
    assert len(keys) > 60
    unread = [key for key in keys if not any(re.search(rf"\.{key}\b", text) for text in readers)]
    assert unread == []


def test_every_test_folder_mirrors_the_package() -> None:
    packages = {path.parent.name for path in SOURCES}
    folders = {path.name for path in (ROOT / "tests").iterdir() if (path / "__init__.py").exists()}
    assert folders - packages <= {"scripts"}
