"""`qtune compare`: real cells in this process, and what becomes of cells that end otherwise."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from qtune.cli.app import run_app
from qtune.cli.compare_table import tables
from qtune.errors import OutputError, ResumeError, UsageError
from qtune.run.comparison import cells, cost
from qtune.run.comparison.children import Outcome
from qtune.run.comparison.compare import compare_methods
from qtune.run.comparison.entries import Given, entries, references
from qtune.run.display import Quiet
from tests.run.made_run import make_run, write_rows
from tests.run.test_classification import made
from tests.tiny import save_tiny

FAILED = {"error": {"faults": [{"message": "no", "place": "key", "hint": "do"}]}}


class Lines(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def make_recipe(folder: Path, **sections: Any) -> Path:
    save_tiny(folder / "base")
    write_rows(folder / "train.jsonl", 8)
    write_rows(folder / "test.jsonl", 4, first=100)
    settings: dict[str, Any] = {
        "model": {"name_or_path": "base"},
        "quantization": {"compute_dtype": "float32"},
        "method": {"name": "lora", "lora_r": 4, "alpha": 8, "dropout": 0.0},
        "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
        "optim": {"name": "adamw", "learning_rate": 2e-2},
        "train": {"max_steps": 2, "batch_size": 4},
    }
    (folder / "mine.yaml").write_text("method: {name: lora, use_dora: true}\n")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings | sections))
    return path


def here(words: Sequence[str], **_: Any) -> Outcome:
    """The verb in this process: as honest about all but memory, and ten times as fast."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = run_app([*words, "--json"])
    return Outcome(code, json.loads(out.getvalue()))


def compare(path: Path, words: str, **options: Any) -> tuple[dict[str, Any], int]:
    options = {"seeds": 1, "output": path.parent / "out", "display": Quiet()} | options
    return compare_methods(path, words.split(), **options)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], Path]]:
    folder = tmp_path_factory.mktemp("compare")
    path = make_recipe(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "qtune", here)
        for name in ("PROMPTS", "NEW_TOKENS", "ROUNDS"):
            patch.setattr(cost, name, 2)
        report, code = compare(path, "lora prompt adalora")
        assert code == 0
        yield report, folder / "out"


def row_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    [row] = [row for row in report["rows"] if row["name"] == name]
    return row


def test_each_row_has_its_five_axes(compared: tuple[dict[str, Any], Path]) -> None:
    report, folder = compared
    lora, prompt = row_of(report, "lora"), row_of(report, "prompt")
    run = folder / "cells" / "lora" / "seed-42"
    file = run / "adapter" / "adapter_model.safetensors"
    assert lora["storage"]["adapter_bytes"] == file.stat().st_size
    told = json.loads((run / "report.json").read_text())
    assert lora["memory"]["training_peak_bytes"] == told["memory"]["measured_peak_bytes"]
    assert lora["compute"]["tokens_per_second"] == told["tokens_per_second"]
    [best] = [one for one in told["evaluations"] if one["step"] == told["adapter_step"]]
    assert lora["accuracy"]["loss"]["values"] == [best["loss"]]
    assert prompt["storage"]["trainable_parameters"] == 20 * 64
    for row in (lora, prompt):
        assert row["reason"] is None
        assert row["memory"]["inference_peak_bytes"] > 1e7
        inside = row["compute"]["forward_flops_per_token"]
        assert inside > 2 * 73_728  # the weights of the base's linears
        assert row["compute"]["training_flops_per_token"] > 1.5 * inside
        seconds = row["inference"]["seconds_per_token"]
        share = seconds / row["inference"]["base_seconds_per_token"] - 1
        assert row["inference"]["overhead"] == share
    assert lora["inference"]["merged_seconds_per_token"] > 0
    assert prompt["inference"]["merged_seconds_per_token"] is None
    assert (
        "prompt" in prompt["inference"]["not_merged"]
        or "merge" in prompt["inference"]["not_merged"]
    )


def test_the_rows_learn_from_the_same_tokens(compared: tuple[dict[str, Any], Path]) -> None:
    report, _ = compared
    lora, prompt = row_of(report, "lora"), row_of(report, "prompt")
    assert lora["seeds"][0]["tokens"] == prompt["seeds"][0]["tokens"] > 0
    assert report["notes"] == []


def test_the_bases_are_there_too(compared: tuple[dict[str, Any], Path]) -> None:
    report, folder = compared
    dense, nf4 = row_of(report, "base-float32"), row_of(report, "base-nf4")
    run = folder / "cells" / "lora" / "seed-42"
    before = json.loads((run / "report.json").read_text())["evaluations"][0]
    assert nf4["accuracy"]["loss"]["mean"] == pytest.approx(before["loss"], rel=1e-6)
    assert dense["accuracy"]["loss"]["mean"] != nf4["accuracy"]["loss"]["mean"]
    for row in (dense, nf4):
        assert row["storage"]["adapter_bytes"] == 0
        assert row["compute"]["training_flops_per_token"] is None
        assert row["inference"]["seconds_per_token"] > 0


def test_what_refuses_is_a_row_with_its_reason(compared: tuple[dict[str, Any], Path]) -> None:
    refused = row_of(compared[0], "adalora")  # its target rank is 8, the recipe's rank 4
    assert "target_rank" in refused["reason"]
    assert refused["seeds"] == []
    assert str(compared[1].parent) not in json.dumps(compared[0]["rows"])  # it goes elsewhere
    assert refused["accuracy"] == {}


def test_a_finished_comparison_runs_nothing_again(
    compared: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    report, folder = compared
    called: list[Sequence[str]] = []

    def count(words: Sequence[str], **_: Any) -> Outcome:
        called.append(words)
        return Outcome(2, FAILED)

    monkeypatch.setattr(cells, "qtune", count)
    path = folder.parent / "recipe.yaml"
    again, code = compare(path, "lora prompt adalora", output=folder)
    assert code == 0
    assert [words[1].rpartition("/cells/")[2] for words in called] == ["adalora/seed-42.yaml"]
    assert row_of(again, "lora") == row_of(report, "lora")


def test_runs_are_compared_as_they_are(
    compared: tuple[dict[str, Any], Path],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    report, folder = compared
    run = folder / "cells" / "lora" / "seed-42"
    assert run_app(["compare", str(run), "-o", str(tmp_path / "out")]) == 0
    shown = capfd.readouterr().out
    assert "seed-42" in shown
    assert shown.count("base-nf4") == 1
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert row_of(found, "seed-42")["accuracy"] == row_of(report, "lora")["accuracy"]
    assert (tmp_path / "out" / "compare.md").read_text().count("\n| ") == 4
    assert "<svg" in (tmp_path / "out" / "compare.svg").read_text()
    assert run_app(["compare", str(folder), "-o", str(tmp_path / "two")]) == 2
    assert "not a finished run" in capfd.readouterr().err
    assert run_app(["compare", str(run), "-o", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["rows"] == found["rows"]
    assert run_app(["compare", str(run), "--seeds", "2", "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["faults"][0]["hint"]


def test_classifiers_are_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "qtune", here)
    path = made(tmp_path, "bert")
    report, code = compare(path, "lora", overrides=["train.max_steps=2"])
    assert code == 0
    row, base = row_of(report, "lora"), row_of(report, "base-nf4")
    assert row["reason"] is base["reason"] is None
    assert row["accuracy"].keys() == base["accuracy"].keys() >= {"loss", "accuracy"}
    assert row["inference"]["merged_seconds_per_token"] > 0
    assert row["compute"]["training_flops_per_token"] > row["compute"]["forward_flops_per_token"]


def test_what_a_method_trains_is_counted_though_its_file_is_read_as_lora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PROMPTS", "NEW_TOKENS", "ROUNDS"):
        monkeypatch.setattr(cost, name, 1)
    found = {}
    for name in ("lora", "lora_fa"):
        (tmp_path / name).mkdir()
        run = make_run(tmp_path / name, method={"name": name, "rank": 4, "dropout": 0.0})
        found[name] = cost.measure_cost(run / "recipe.yaml", run, display=Quiet())
    both = [each["training_flops_per_token"] for each in found.values()]
    inside = [each["forward_flops_per_token"] for each in found.values()]
    assert inside[0] == inside[1]
    # the gradients of A: a product as large as A's own, in both layers
    assert both[0] - both[1] >= 2 * 4 * 2 * (6 * 64 + 128)


def test_a_narrow_terminal_gets_two_tables(compared: tuple[dict[str, Any], Path]) -> None:
    report, _ = compared
    for width, count in ((120, 1), (80, 2)):
        console = Console(width=width, file=io.StringIO())
        for each in tables(report, width):
            console.print(each)
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert shown.count("base-float32 ") == count
        assert "…" not in shown


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, int]], list[str]]:
    """Cells that end with the code that is given for them, and else do as if they were done."""

    def script(codes: dict[str, int]) -> list[str]:
        called: list[str] = []

        def run(words: Sequence[str], *, what: str, **_: Any) -> Outcome:
            called.append(what)
            code = codes.get(what, 0)
            if code == 0 and words[0] == "cost":
                Path(words[-1]).write_text(json.dumps({"seconds_per_token": {"base": 0.1}}))
            elif code == 0:
                finish(Path(words[3]))
            return Outcome(code, FAILED if code else {})

        monkeypatch.setattr(cells, "qtune", run)
        return called

    return script


def finish(run: Path) -> None:
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "adapter_config.json").write_text("{}")
    (run / "recipe.yaml").write_text("{}")
    (run / "plan.json").write_text("{}")
    loss = 1.0 if run.name == "seed-42" else 2.0
    report = {
        "steps": 1,
        "tokens": 10,
        "tokens_per_second": 5.0,
        "adapter_step": 1,
        "evaluations": [{"step": 0, "loss": 9.0}, {"step": 1, "loss": loss}],
        "memory": {"measured_peak_bytes": 7, "predicted_bytes": 6},
    }
    (run / "report.json").write_text(json.dumps(report))


def test_a_stopped_comparison_goes_on(
    tmp_path: Path, scripted: Callable[[dict[str, int]], list[str]]
) -> None:
    path = make_recipe(tmp_path)
    scripted({"prompt, seed 43": 130})
    with pytest.raises(cells.CellError) as stopped:
        compare(path, "lora prompt", seeds=2)
    assert stopped.value.code == 130
    called = scripted({})
    report, code = compare(path, "lora prompt", seeds=2)
    assert (code, called) == (0, ["prompt, seed 43", "prompt, in use"])
    spread = row_of(report, "lora")["accuracy"]["loss"]
    assert spread == {"mean": 1.5, "deviation": pytest.approx(0.5**0.5), "values": [1.0, 2.0]}
    called = scripted({})
    compare(path, "lora prompt bitfit", seeds=2)  # more rows go into the same folder
    assert called == ["bitfit, seed 42", "bitfit, seed 43", "bitfit, in use"]


def test_a_refusal_ends_its_row_alone(
    tmp_path: Path, scripted: Callable[[dict[str, int]], list[str]]
) -> None:
    path = make_recipe(tmp_path)
    called = scripted({"lora, seed 42": -9, "base-float32, in use": 5})
    lines = Lines()
    report, code = compare(path, "lora prompt", seeds=2, display=lines)
    assert code == 0
    assert "lora, seed 43" not in called
    assert row_of(report, "lora")["reason"] == "key: no (do)"
    assert row_of(report, "base-float32")["reason"] == "key: no (do)"
    assert lines.lines[-1].endswith("(6 of 6)")  # two bases, one of lora, three of prompt


def test_when_all_refuse_it_fails_as_the_first(
    tmp_path: Path, scripted: Callable[[dict[str, int]], list[str]]
) -> None:
    scripted({"lora, seed 42": 5, "prompt, seed 42": 6})
    assert compare(make_recipe(tmp_path), "lora prompt")[1] == 5


def test_faulty_rows_end_all(
    tmp_path: Path, scripted: Callable[[dict[str, int]], list[str]]
) -> None:
    scripted({"lora, seed 42": 3})
    with pytest.raises(cells.CellError) as stopped:
        compare(make_recipe(tmp_path), "lora prompt")
    assert stopped.value.code == 3
    assert str(stopped.value) == "key: lora, seed 42: no (do)"


def test_another_recipe_or_folder_is_refused(
    tmp_path: Path, scripted: Callable[[dict[str, int]], list[str]]
) -> None:
    path = make_recipe(tmp_path)
    scripted({})
    compare(path, "lora")
    with pytest.raises(ResumeError, match="another recipe"):
        compare(path, "lora", overrides=["train.max_steps=3"])
    with pytest.raises(OutputError, match="no comparison"):
        compare(path, "lora", output=tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        compare(path, "lora", output=path)


def test_a_word_is_a_name_a_fragment_or_a_file(tmp_path: Path) -> None:
    given = Given.read(make_recipe(tmp_path), ["optim.weight_decay=0.1"])
    words = ["lora", "dylora", "prompt", "method/qlora", str(tmp_path / "mine.yaml")]
    found = {entry.label: entry.asked for entry in entries(given, words)}
    assert list(found) == ["lora", "dylora", "prompt", "qlora", "mine"]
    methods = {label: asked.method.model_dump() for label, asked in found.items() if asked}
    assert methods["lora"]["rank"] == methods["dylora"]["rank"] == methods["mine"]["rank"] == 4
    assert methods["dylora"]["min_rank"] == 1
    assert methods["mine"]["use_dora"]
    assert methods["qlora"]["rank"] == 64  # what a fragment says it says of its row
    assert found["qlora"].optim.max_grad_norm == 0.3  # type: ignore[union-attr]
    assert all(asked.optim.weight_decay == 0.1 for asked in found.values() if asked)
    dense, nf4 = references(given.loaded.recipe)
    assert (dense.label, nf4.label) == ("base-float32", "base-nf4")
    assert dense.asked.quantization.bits == 16  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lorra"], "did you mean lora"),
        (["lora", "lora"], "twice"),
        ([], "names none"),
        (["bad.yaml"], "train: a compared method sets"),
    ],
)
def test_faulty_words_are_told_before_anything_runs(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("method: {name: lora}\ntrain: {max_steps: 9}\n")
    with pytest.raises(UsageError, match=message):
        compare(path, " ".join(words))
    assert not (tmp_path / "out").exists()


def test_there_must_be_held_out_rows(tmp_path: Path) -> None:
    path = make_recipe(tmp_path, data={"train": [{"path": "train.jsonl"}]})
    with pytest.raises(UsageError, match="held-out"):
        compare(path, "lora")


def test_the_command_imports_no_torch_to_refuse() -> None:
    code = (
        "import sys\nfrom qtune.cli.app import run_app\n"
        "code = run_app(['compare', 'nowhere.yaml', '--methods', 'lora'])\n"
        "sys.exit(code if 'torch' not in sys.modules else 99)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
