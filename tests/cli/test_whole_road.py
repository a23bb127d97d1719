"""train -> eval -> merge -> generate through the command line, and a stop half-way."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from qtune.cli.app import run_app
from tests.run.made_run import write_rows
from tests.tiny import save_tiny, tiny_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    save_tiny(folder / "base", tiny_llama())
    write_rows(folder / "train.jsonl", 40)
    write_rows(folder / "test.jsonl", 8, first=100)
    settings = {
        "model": {"name_or_path": "base"},
        "quantization": {"compute_dtype": "float32"},
        "method": {"name": "lora", "rank": 8, "alpha": 16, "dropout": 0},
        "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
        "optim": {"name": "adamw_8bit", "learning_rate": 1e-2, "max_grad_norm": 1.0},
        "train": {"batch_size": 8, "max_steps": 12},
        "eval": {"steps": 4, "generate_rows": 4, "max_new_tokens": 8},
        "logging": {"report_to": ["tensorboard"], "steps": 2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return folder


def _run(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    code = run_app([str(argument) for argument in arguments])
    said = capfd.readouterr()
    assert code == 0, said.err
    return said


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """The finished run; made once, by the command line."""
    assert run_app(["train", str(folder / "recipe.yaml"), "-o", str(folder / "run")]) == 0
    return folder / "run"


def test_training_leaves_the_folder_it_promises(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "recipe.yaml",
        "plan.json",
        "env.json",
        "metrics.jsonl",
        "log.txt",
        "checkpoints",
        "adapter",
        "report.json",
        "recipe.lock.yaml",
        "gates.json",
        "junit.xml",
        "summary.md",
        "report.html",
    }
    assert list(run.rglob("events.out.tfevents.*"))
    report = json.loads((run / "report.json").read_text())
    assert [record["step"] for record in report["evaluations"]] == [0, 4, 8, 12]
    assert report["evaluations"][-1]["loss"] < report["evaluations"][0]["loss"] - 0.4
    assert report["memory"]["measured_peak_bytes"] > report["memory"]["predicted_bytes"] / 10


def test_metrics_are_logged_as_asked(run: Path) -> None:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in trained] == [2, 4, 6, 8, 10, 12]
    assert [record["step"] for record in records if record["kind"] == "eval"] == [0, 4, 8, 12]
    log = (run / "log.txt").read_text()
    assert "step 12/12" in log
    assert "eval at step 12" in log


def test_the_best_and_the_last_step_are_kept(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    best = min(report["evaluations"][1:], key=lambda record: record["loss"])["step"]
    assert report["adapter_step"] == best
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    assert kept == {f"step-{best:06d}", "step-000008", "step-000012"}


def test_no_path_of_the_machine_is_in_the_run(run: Path, folder: Path) -> None:
    for path in run.rglob("*"):
        if path.is_file() and "tfevents" not in path.name:
            assert str(folder).encode() not in path.read_bytes(), path.name


def test_the_run_is_evaluated_merged_and_asked(
    run: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = _run(capfd, "eval", run, "--json")
    report = json.loads(said.out)
    trained = json.loads((run / "report.json").read_text())
    best = min(trained["evaluations"][1:], key=lambda record: record["loss"])
    assert report["adapter"]["loss"] == pytest.approx(best["loss"], abs=1e-6)
    assert report["base"]["loss"] == pytest.approx(trained["evaluations"][0]["loss"], abs=1e-6)
    _run(capfd, "merge", run, "-o", folder / "merged")
    own = _run(capfd, "generate", run, "--prompt", "5: seven ->", "--max-new-tokens", "6")
    merged = _run(
        capfd,
        "generate",
        folder / "merged",
        "--raw",  # a model alone does not know that its rows had no chat template
        "--prompt",
        "5: seven ->",
        "--max-new-tokens",
        "6",
    )
    assert own.out == merged.out != ""


def test_the_recipe_in_the_run_repeats_it(
    run: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _run(capfd, "train", run / "recipe.yaml", "-o", folder / "again", "--quiet")
    names = ["adapter_model.safetensors", "adapter_config.json"]
    for name in names:
        first, again = run / "adapter" / name, folder / "again" / "adapter" / name
        assert first.read_bytes() == again.read_bytes()


def test_json_is_one_object_on_stdout(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = folder / "json"
    said = _run(
        capfd, "train", folder / "recipe.yaml", "-o", out, "--json", "-q", "--max-steps", "1"
    )
    assert json.loads(said.out)["steps"] == 1
    assert said.err == ""


def test_a_run_that_diverges_says_where_and_publishes_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lost = folder / "lost"
    rate = ("--set", "optim.learning_rate=1e30", "--set", "optim.warmup_steps=0")
    code = run_app(["train", str(folder / "recipe.yaml"), "-o", str(lost), "-q", *rate])
    said = capfd.readouterr().err
    assert code == 6
    assert "no update was made" in said
    assert "train.jsonl:" in said
    assert said.strip() in (lost / "log.txt").read_text()
    assert not (lost / "adapter").exists()


def test_a_dry_run_leaves_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = _run(capfd, "train", folder / "recipe.yaml", "-o", folder / "dry", "--dry-run", "--json")
    report = json.loads(said.out)
    assert report["plan"]["fits"] is True
    assert report["data"]["train"]["rows"] == 40
    write_rows(folder / "many.jsonl", 300)
    of_many = f"data.train=[{{path: {folder}/many.jsonl}}]"
    more = ("--set", of_many, "--set", "data.eval=", "--set", "data.val_size=200")
    arguments = ("train", folder / "recipe.yaml", "-o", folder / "dry", "--dry-run", "--json")
    sample = json.loads(_run(capfd, *arguments, *more).out)["data"]
    assert (sample["train"]["rows"], sample["eval"]["rows"]) == (64, 200)
    assert not (folder / "dry").exists()


def test_rows_beyond_the_models_positions_are_told(
    folder: Path, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    long = json.dumps({"prompt": "say", "completion": "a" * 300})
    (folder / "long.jsonl").write_text(f"{long}\n" * 3)
    told = "warning: data.max_length: 3 of 3 rows are longer than the 256 positions"
    assert told in _run(capfd, "eval", run, folder / "long.jsonl", "-o", folder / "long.json").err
    rows = ("--set", f"data.train=[{{path: {folder}/long.jsonl}}]", "--set", "data.eval=")
    dry = ("train", folder / "recipe.yaml", "-o", folder / "dry", "--dry-run", *rows)
    assert told in _run(capfd, *dry).err
    factor = ("--set", "method.name=long_lora", "--set", "method.rope_factor=2")
    assert "positions" not in _run(capfd, *dry, *factor).err


def test_a_warm_up_longer_than_the_run_is_told(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    long = ("--set", "optim.warmup_steps=900", "--set", "data.eval=", "--set", "data.val_size=2")
    arguments = ("train", folder / "recipe.yaml", "-o", folder / "dry", "--dry-run", *long)
    said = _run(capfd, *arguments)
    assert "900 of warm-up (the learning rate never gets to its full height)" in said.err
    assert ", held out of the training rows" in said.err


def test_a_signal_stops_after_the_step_with_weights_and_no_result(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtune.run.follow import Follower

    logged = Follower._log

    def log_then_terminate(self: Follower, event: Any) -> None:
        logged(self, event)
        if event.step == 6:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Follower, "_log", log_then_terminate)
    stopped = folder / "stopped"
    code = run_app(["train", str(folder / "recipe.yaml"), "-o", str(stopped)])
    said = capfd.readouterr()
    assert code == 143
    assert "stopped after step 6, saved in stopped/checkpoints/step-000006; go on with" in said.err
    assert (stopped / "checkpoints" / "step-000006" / "adapter_model.safetensors").is_file()
    assert not (stopped / "adapter").exists()


def test_a_signal_during_the_first_evaluation_leaves_no_weights_and_no_traceback(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtune.run.follow import Follower

    told = Follower._on_evaluation

    def tell_then_interrupt(self: Follower, event: Any) -> None:
        told(self, event)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Follower, "_on_evaluation", tell_then_interrupt)
    stopped = folder / "stopped-early"
    code = run_app(["train", str(folder / "recipe.yaml"), "-o", str(stopped)])
    said = capfd.readouterr()
    assert code == 130, said.err
    assert "stopped before the first step" in said.err
    assert "0 steps" in said.out
    assert not (stopped / "checkpoints").exists()
