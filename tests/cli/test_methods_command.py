from __future__ import annotations

import json
import subprocess
import sys
from typing import get_args

import pytest

from qtune.cli.app import run_app
from qtune.methods.table import BY_PEFT_TYPE, METHODS, ROWS
from qtune.recipe.peft_types import PeftType


def test_every_method_is_listed_with_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["methods", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["methods"]}
    assert list(found) == list(METHODS)
    # rank 64 on q, k, v, o, gate, up, down of 32 layers: 64 (n + m) each
    sides = 4096 * 2 + 2 * (4096 + 1024) + 4096 * 2 + 3 * (4096 + 14336)
    assert found["lora"]["parameters"] == 32 * 64 * sides
    assert found["prompt"]["parameters"] == 20 * 4096
    for name, one in found.items():
        assert one["saves"] == ROWS[name].peft_type
        assert one["merges"] == ROWS[name].merges


def test_a_type_of_file_is_read_by_its_first_method() -> None:
    assert BY_PEFT_TYPE["LORA"] == "lora"
    assert set(BY_PEFT_TYPE) == {row.peft_type for row in ROWS.values()} | set(get_args(PeftType))
    assert all(BY_PEFT_TYPE[kind] == "peft" for kind in get_args(PeftType))


def test_the_table_and_its_markdown_hold_each_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["methods"]) == 0
    shown = capsys.readouterr().out
    assert run_app(["methods", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].strip("|-") == ""
    for name, row in ROWS.items():
        assert f"\n{name} " in shown
        [line] = [each for each in lines if each.startswith(f"| {name} |")]
        assert row.paper in line
        assert line.count(" | ") == lines[0].count(" | ")


def test_torch_is_not_imported() -> None:
    code = (
        "import sys\nfrom qtune.cli.app import run_app\nrun_app(['methods'])\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
