from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from qtune.cli.recipe_commands import schema, show, validate
from qtune.errors import UsageError
from qtune.recipe import leaves, load

MINIMAL = "model: {name_or_path: org/model}\ndata: {train: [{path: org/rows}]}\n"

app = typer.Typer(pretty_exceptions_enable=False)
for verb in (validate, show, schema):
    app.command()(verb)


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(MINIMAL)
    Path("bad.yaml").write_text(MINIMAL + "lr: fast\nwibble: 1\n")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_validate_says_valid_with_a_summary() -> None:
    done = run("validate", "good.yaml", "--set", "method.rank=8", "--set", "train.max_steps=5")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "good.yaml: valid",
        "  org/model, 4 bits, lora rank 8, learning rate 0.0002, batch 16, steps 5",
    ]


def test_validate_checks_every_file_and_tells_all_faults() -> None:
    done = run("validate", "bad.yaml", "good.yaml", "nowhere.yaml")
    assert isinstance(done.exception, UsageError)
    assert [fault.place for fault in done.exception.faults] == [
        "bad.yaml:3",
        "bad.yaml:4",
        "nowhere.yaml",
    ]
    assert done.stdout.startswith("good.yaml: valid\n")


def test_validate_json_is_one_object_with_the_exit_code() -> None:
    done = run("validate", "bad.yaml", "good.yaml", "--json")
    assert done.exit_code == 2
    report = json.loads(done.stdout)
    assert report["valid"] is False
    assert [entry["valid"] for entry in report["recipes"]] == [False, True]
    fault = report["recipes"][0]["faults"][0]
    assert fault["place"] == "bad.yaml:3"
    assert fault["message"] == "optim.learning_rate (written lr): 'fast' is not a number"
    good = run("validate", "good.yaml", "--json")
    assert good.exit_code == 0
    assert json.loads(good.stdout)["valid"] is True


def test_show_prints_every_value_with_its_origin_in_80_columns() -> None:
    done = run("show", "guanaco-65b-48gb", "--set", "lr=1e-3")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    values = [line for line in lines if line.startswith("  ") and line[2] != " "]
    loaded = load("guanaco-65b-48gb", ["lr=1e-3"])
    assert len(values) == len(list(leaves(loaded.recipe)))
    words = {line.split()[0]: line.split()[1:] for line in values}
    assert words["learning_rate"] == ["0.001", "--set", "lr=1e-3,", "written", "lr"]
    assert words["max_grad_norm"] == ["0.3", "method/qlora.yaml:17"]
    assert words["weight_decay"] == ["0.0", "default"]
    assert words["min_lr_ratio"] == ["0.0", "default,", "not", "read"]


def test_show_keeps_odd_texts_on_one_line() -> None:
    done = run(
        "show", "good.yaml", "--set", "method.name=prompt", "--set", 'method.init_text="a\\nb"'
    )
    assert '"a\\nb"' in done.stdout
    assert "[red]" in run("show", "good.yaml", "--set", "model.revision='[red]'").stdout


def test_show_json_holds_recipe_and_origins() -> None:
    done = run("show", "good.yaml", "--json")
    report = json.loads(done.stdout)
    assert report["name"] == "good"
    assert report["recipe"]["method"]["rank"] == 64
    assert report["origins"]["model.name_or_path"] == {
        "kind": "file",
        "place": "good.yaml:1",
        "note": "",
    }


def test_schema_prints_json() -> None:
    done = run("schema")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["title"] == "qtune recipe"


@pytest.mark.parametrize("verb", ["validate good.yaml", "show good.yaml", "schema"])
def test_nothing_heavy_is_imported(verb: str) -> None:
    """What makes these verbs fast; how fast is for scripts/bench/start.py to say."""
    heavy = ("torch", "transformers", "datasets", "accelerate", "numpy", "pyarrow")
    code = (
        "import sys, io, contextlib\n"
        "from qtune.cli.app import run_app\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    code = run_app({verb.split()!r})\n"
        f"print(code, [name for name in {heavy} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 []\n"
