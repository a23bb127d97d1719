"""`qtune eval`: adapter beside base, files never overwritten, and what cannot be measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional

from qtune import data, models
from qtune.errors import DataError, ExitCode, ModelError, OutputError, ResourceError, UsageError
from qtune.run.bench import Limits
from qtune.run.display import Quiet
from qtune.run.eval import evaluate
from qtune.run.merge import merge
from qtune.run.subject import load, resolve
from tests.run.made_run import make_run, write_rows

if TYPE_CHECKING:
    from pathlib import Path


def run_eval(thing: Path | str, against: str | None = None, **settings: Any) -> dict[str, Any]:
    return evaluate(str(thing), against, display=Quiet(), **settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"))


def plain_loss(run: Path, *, adapter: bool) -> float:
    """Loss of the held-out rows from the model's own logits, one row at a time."""
    subject = resolve(str(run))
    loaded = load(subject, device=torch.device("cpu"))
    asked = subject.recipe
    rows = data.read_eval(asked.data.eval, asked, models.load_tokenizer(asked.model))
    if not adapter:
        loaded.method.detach()
    total, count = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = loaded.base.model(input_ids=torch.tensor([row.input_ids])).logits[0]
        labels = torch.tensor(row.labels)[1:]
        total += float(functional.cross_entropy(logits[:-1], labels, reduction="sum"))
        count += int((labels != -100).sum())
    return total / count


def test_adapter_and_base_side_by_side(run: Path) -> None:
    report = run_eval(run, limits=Limits(generate=4, max_new_tokens=5))
    assert report["rows"] == 9
    assert report["kind"] == "run"
    for side, adapter in (("adapter", True), ("base", False)):
        assert report[side]["loss"] == pytest.approx(plain_loss(run, adapter=adapter), rel=1e-4)
        assert report[side]["answers"]["rows"] == 4
    moved = report["difference"]
    assert moved["loss"] == pytest.approx(report["adapter"]["loss"] - report["base"]["loss"])
    assert moved["loss_low"] <= moved["loss"] <= moved["loss_high"]
    json.dumps(report, allow_nan=False)


def test_reports_are_numbered_never_overwritten(run: Path) -> None:
    before = {path.name: path.read_text() for path in run.glob("eval*")}
    first = run_eval(run, limits=Limits(rows=3))
    second = run_eval(run, limits=Limits(rows=2, generate=2, max_new_tokens=3))
    new = sorted(path.name for path in run.glob("eval*") if path.name not in before)
    assert len(new) == 3  # two reports and one file of answers
    for name, text in before.items():
        assert (run / name).read_text() == text
    answers = next(run / name for name in new if name.endswith(".predictions.jsonl"))
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [line["side"] for line in lines] == ["adapter"] * 2 + ["base"] * 2
    assert lines[0]["place"].endswith("test.jsonl:1")
    assert lines[0]["prompt"].startswith("100: ")
    report = json.loads(
        answers.with_name(answers.name.replace(".predictions.jsonl", ".json")).read_text()
    )
    assert report == second
    assert first["rows"] == 3


def test_output_file(run: Path, tmp_path: Path) -> None:
    report = run_eval(run, limits=Limits(rows=2), output=tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == report
    with pytest.raises(OutputError) as caught:
        run_eval(run, output=tmp_path / "r.json")
    assert caught.value.code == ExitCode.OUTPUT_IN_USE
    with pytest.raises(UsageError, match="no such folder"):
        run_eval(run, output=tmp_path / "not" / "r.json")


def test_a_full_disk_leaves_no_answers_without_their_report(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qtune.run.eval.write_json", full)
    limits = Limits(rows=2, generate=2, max_new_tokens=2)
    with pytest.raises(OSError, match="No space left"):
        run_eval(run, limits=limits, output=tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_written_is_told_before_measuring(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("qtune.run.eval.load", None)
    with pytest.raises(ResourceError, match="is not writable"):
        run_eval(run)


def test_other_data_is_read_like_the_runs_own(run: Path, tmp_path: Path) -> None:
    other = write_rows(tmp_path / "other.jsonl", 5, first=300)
    report = run_eval(run, str(other), output=tmp_path / "r.json")
    assert report["rows"] == 5
    own = run_eval(run, output=tmp_path / "own.json")
    assert own["adapter"]["loss"] != report["adapter"]["loss"]


def test_the_merged_model_measures_like_the_adapter(run: Path, tmp_path: Path) -> None:
    merge(str(run), tmp_path / "merged", verify=False, display=Quiet())
    ours = run_eval(run, output=tmp_path / "ours.json", limits=Limits(generate=3, max_new_tokens=6))
    theirs = run_eval(
        tmp_path / "merged",
        str(run / "recipe.yaml"),
        limits=Limits(generate=3, max_new_tokens=6),
    )
    assert theirs["kind"] == "model"
    assert theirs["model"]["loss"] == pytest.approx(ours["adapter"]["loss"], abs=1e-5)
    assert theirs["model"]["answers"] == ours["adapter"]["answers"]
    quantised = run_eval(
        tmp_path / "merged", str(run / "recipe.yaml"), overrides=["quantization.bits=4"]
    )
    assert quantised["model"]["loss"] != pytest.approx(theirs["model"]["loss"], abs=1e-6)


def test_a_model_with_a_data_file(run: Path) -> None:
    base = run.parent / "base"
    report = run_eval(base, str(run.parent / "test.jsonl"))
    assert report["model"]["loss"] == pytest.approx(5.77, abs=0.3)  # ln 320, untrained
    assert not list(base.glob("eval*"))


def test_what_cannot_be_measured(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no rows to measure it on"):
        run_eval(run.parent / "base")
    with pytest.raises(DataError, match="no such file"):
        run_eval(run, str(tmp_path / "missing.jsonl"))
    with pytest.raises(UsageError, match="neither a run"):
        run_eval(tmp_path)
    with pytest.raises(UsageError, match="a file, where"):
        run_eval(run / "recipe.yaml")
    with pytest.raises(UsageError, match="no such folder"):
        run_eval("./nowhere")
    with pytest.raises(UsageError, match="--set changes a recipe"):
        run_eval(
            run.parent / "base", str(run.parent / "test.jsonl"), overrides=["eval.batch_size=2"]
        )


def test_a_run_that_held_nothing_out(tmp_path: Path) -> None:
    run = make_run(tmp_path, data={"train": [{"path": "../train.jsonl"}]})
    with pytest.raises(DataError, match="nothing was held out"):
        run_eval(run)
    share = run_eval(run, overrides=["data.val_size=3"], limits=Limits())
    assert share["rows"] == 3


def test_a_tampered_or_foreign_adapter_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    weights = run / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 64
    weights.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        run_eval(run)
    assert caught.value.code == ExitCode.MODEL
    assert not list(run.glob("eval*"))


def test_a_lone_adapter_beside_a_recipe_is_not_that_recipes_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    lone = (run / "adapter").rename(tmp_path / "lone")
    (tmp_path / "recipe.yaml").write_text((run / "recipe.yaml").read_text())
    found = resolve(str(lone), base=str(tmp_path / "base"))
    assert (found.recipe, found.run, found.name) == (None, None, "lone")
    (run / "checkpoints").mkdir()
    step = lone.rename(run / "checkpoints" / "step-000001")
    assert resolve(str(step)).run == run


def test_a_run_that_was_moved_away_from_its_base(tmp_path: Path) -> None:
    run = make_run(tmp_path / "here")
    (tmp_path / "a: b").mkdir()
    base = (tmp_path / "here" / "base").rename(tmp_path / "a: b" / "base")
    with pytest.raises(ModelError, match=r"base model is not there \(add --base-model"):
        resolve(str(run))
    assert resolve(str(run), base=str(base)).base_name == "base"
    with pytest.raises(UsageError, match="no run, adapter or model is named"):
        resolve("")
