from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from qtune.cli.app import run_app
from tests.plan.given import LLAMA_65B

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """\
model: {name_or_path: ./llama}
data: {train: [{path: rows.jsonl}], max_length: 512}
"""
RESIDENT = ["--set", "memory.base=resident"]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text(json.dumps(LLAMA_65B))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 1600)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "recipe.yaml"


def test_65b_on_a_48gb_card_is_itemised(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["plan", str(recipe), "--gpu", "48GB"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for part in (
        "NF4 weights                         32.4 GB  560 linears, 64.8 billion weights",
        "NF4 constants                       1.03 GB",
        "low-rank matrices                   3.20 GB  800 million parameters x 4 B",
        "optimizer states, paged out (host)",
        "activations       layer",
        "steps: 100 (100 an epoch of 1,600 rows, 3 warm-up), at most 819,200 tokens",
        "GB of states page to the host",
    ):
        assert part in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


def test_what_cannot_fit_is_shown_and_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["plan", str(recipe), "--gpu", "24GB", *RESIDENT]) == 5
    shown = capsys.readouterr()
    assert "does not fit" in shown.out
    assert "NF4 weights" in shown.out
    assert shown.err.startswith("error: memory: needs 43.6 GB, and 23.8 GB are there (24 GB GPU)")
    assert "Traceback" not in shown.err


def test_json_is_one_object_also_when_it_does_not_fit(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["plan", str(recipe), "--gpu", "48GB", "--json"]) == 0
    fitting = json.loads(capsys.readouterr().out)
    assert fitting["fits"] is True
    assert fitting["recipe"] == "recipe"
    assert fitting["steps"]["total"] == 100
    assert fitting["rows"] == {"count": 1600, "reason": "rows in the files, before any is dropped"}
    assert run_app(["plan", str(recipe), "--gpu", "40GB", "--json", *RESIDENT]) == 5
    refused = json.loads(capsys.readouterr().out)
    assert refused["fits"] is False
    assert any(remedy["fits"] for remedy in refused["remedies"])


def test_a_suggestion_is_yaml_that_makes_it_fit(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_24 = ["plan", str(recipe), "--gpu", "24GB"]
    assert run_app([*on_24, "--suggest", *RESIDENT]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# planned with it on 24 GB GPU: ")
    recipe.write_text(RECIPE + "".join(f"{line}\n" for line in text.splitlines()))
    assert run_app(on_24) == 0
    assert "memory.base=stream" not in capsys.readouterr().err


def test_a_suggestion_is_not_made_where_none_is_needed_or_none_helps(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["plan", str(recipe), "--gpu", "48GB", "--suggest"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "nothing needs to change\n"
    assert "fits" in shown.out
    assert run_app(["plan", str(recipe), "--gpu", "1GB", "--suggest"]) == 5
    assert "does not fit" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(
    recipe: Path,
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run_app(["plan", str(recipe), "--gpu", "48GB"]) == 0
    lines = capsys.readouterr().out.splitlines()
    tables = [
        line
        for line in lines
        if not line.startswith(("estimate", "next best", "steps", "host memory"))
    ]
    assert max(map(len, tables)) <= max(columns, 60)


def test_a_card_is_named_by_its_model_too(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["plan", str(recipe), "--gpu", "rtx 4090", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["machine"]["name"], made["device"]) == ("RTX 4090", "RTX 4090")
    assert 23e9 < made["budget_bytes"] < 24e9


def test_settings_are_planned_over_the_recipe(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", str(recipe), "--gpu", "40GB", "--json", "--set", "method.rank=16"]
    assert run_app([*arguments, "--set", "method.dtype=bfloat16"]) == 0
    assert json.loads(capsys.readouterr().out)["trainable_parameters"] == 199_884_800


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--gpu", "big"], 2, "--gpu: 'big' is not a size"),
        (["--gpu", "RTX 4091"], 2, "did you mean RTX 4090?"),
        (["--gpu", "40"], 2, "'40' is not a size (write it like 48GB"),
        (["--gpu", "48 BG"], 2, "'48 BG' is not a size (write it like 48GB"),
        (["--set", "model.name_or_path=/nowhere/model", "--gpu", "48GB"], 4, "no such folder"),
        (["--set", "method.target_modules=[q_prj]", "--gpu", "48GB"], 2, "q_proj"),
        (["--processes", "3", "--machines", "2"], 2, "3 processes are not as many on each of 2"),
    ],
)
def test_faults_are_one_line_with_their_code(
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    assert run_app(["plan", str(recipe), *arguments]) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1


def test_65b_is_planned_without_anything_heavy(recipe: Path) -> None:
    code = (
        "import sys; from qtune.cli.app import run_app;"
        f"code = run_app(['plan', {str(recipe)!r}, '--gpu', '48GB']);"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'bitsandbytes'} & set(sys.modules);"
        "print(code, sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "0 []\n"


def test_several_devices_are_planned_together(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["plan", str(recipe), "--gpu", "24GB", "--processes", "8"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "8 x 24 GB GPU, llama"
    assert lines[1].startswith("memory, each ")
    for part in (
        "4.05 GB  one of 8 parts of 32.4 GB",
        "distributed.strategy  fsdp ",
        "on 8 x RTX 3090, rows at their longest",
        "between devices: 5.60 GB of gradients and 56.7 GB of layers a step (PCIe, 10.0 GB/s)",
        "times as fast as one",
        "host memory: 8 x ",
    ):
        assert part in shown.out
    assert max(map(len, lines[1:-9])) <= 80
    assert run_app(["plan", str(recipe), "--gpu", "24GB", "--processes", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["processes"], found["strategy"], found["offload"]) == (8, "fsdp", False)
    assert (found["machine"]["seats"], found["distribution"]["wire"]) == (8, "PCIe")
    assert found["distribution"]["gradient_bytes"] == pytest.approx(5.60e9, rel=0.01)


def test_one_device_says_nothing_of_others(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["plan", str(recipe), "--gpu", "80GB"]) == 0
    shown = capsys.readouterr().out
    assert not any(word in shown for word in ("between devices", "distributed", "each"))
