"""What a run does not go on with: another recipe, other contents, a damaged checkpoint."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from qtune.errors import (
    ModelError,
    QtuneError,
    ResumeError,
    UsageError,
)
from qtune.run.changes import require_keys
from qtune.run.resume import BEGIN, Wanted
from qtune.run.train import train
from tests.run.breaking import (
    RESUME,
    Breaking,
    Crash,
    crash,
    equal,
    metrics,
    run,
    straight_run,
)
from tests.run.made_run import write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return straight_run(tmp_path_factory.mktemp("resume"))


CHANGES = [
    ("optim.learning_rate=1e-4", "optim.learning_rate was 0.005, is 0.0001"),
    ("train.seed=1", "train.seed was 42, is 1"),
    ("quantization.bits=16", "quantization.bits was 4, is 16"),
    ("memory.micro_batch_size=4", "memory.micro_batch_size was 3, is 4"),
    ("method.rank=8", "method.rank was 64, is 8"),
    ("optim.name=adamw", "optim.name was paged_adamw_8bit, is adamw"),
    ("data.train=[{path: other.jsonl}]", "data.train.0.path was train.jsonl, is other.jsonl"),
    ("train.batch_size=4", "train.batch_size was 8, is 4"),
    ("optim.lr_scheduler_type=linear", "optim.lr_scheduler_type was cosine, is linear"),
]


@pytest.fixture(scope="module")
def broken(place: Path) -> Path:
    write_rows(place / "other.jsonl", 20, first=40)
    with pytest.raises(Crash):
        run(place, "broken", display=Breaking(crash, step=3))
    return place


@pytest.mark.parametrize(("change", "says"), CHANGES)
def test_a_changed_recipe_is_refused_with_old_and_new(
    broken: Path, change: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(broken)
    monkeypatch.setattr("qtune.models.load", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(ResumeError) as caught:
        run(broken, "broken", change, wanted=RESUME)
    assert int(caught.value.code) == 8
    assert says in str(caught.value)
    assert "--allow-change" in caught.value.faults[-1].hint


def test_several_changes_are_told_together(broken: Path) -> None:
    with pytest.raises(ResumeError) as caught:
        run(broken, "broken", "train.seed=1", "method.dropout=0.0", wanted=RESUME)
    told = " ".join(fault.message for fault in caught.value.faults)
    assert "method.dropout" in told
    assert "train.seed" in told


def test_an_allowed_change_is_said(broken: Path) -> None:
    shutil.copytree(broken / "broken", broken / "allowed")
    display = Breaking(crash)
    wanted = Wanted(required=True, changes=("optim.learning_rate",))
    _, code = run(broken, "allowed", "optim.learning_rate=1e-4", wanted=wanted, display=display)
    assert code == 0
    assert "changed: optim.learning_rate was 0.005, is 0.0001" in display.lines
    rates = [
        line["learning_rate"]
        for line in metrics(broken / "allowed")
        if "loss" in line and line["kind"] == "train"
    ]
    assert rates[-1] < 1e-4


def test_a_key_that_nothing_reads_is_no_change(place: Path) -> None:
    mine = place / "mine.yaml"
    mine.write_text("extends: ./recipe.yaml\noptim: {min_lr_ratio: 0.1}\n")
    output = f"train.output_dir={place / 'idle'}"
    idled = [output, "optim.lr_scheduler_type=constant"]
    with pytest.raises(Crash):
        train(mine, overrides=idled, display=Breaking(crash, step=3))
    kept = place / "idle" / "recipe.yaml"
    assert "min_lr_ratio" not in kept.read_text()
    assert train(kept, overrides=[output], wanted=RESUME, display=Breaking(crash))[1] == 0


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("optim.learning_rat", "did you mean optim.learning_rate?"),
        ("learning_rate", "did you mean optim.learning_rate?"),
        ("optm", "did you mean optim?"),
        ("data.train.0.pth", "did you mean data.train?"),
        ("everything", "qtune schema lists all keys"),
    ],
)
def test_a_change_of_no_key_is_not_allowed(key: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        require_keys(["optim.learning_rate", key])
    assert str(caught.value) == f"--allow-change: {key}: unknown key ({hint})"


def test_keys_sections_and_contents_may_be_allowed() -> None:
    require_keys(["optim", "method.rank", "data.train", "data.train.0.path", "model", "teacher"])


@pytest.mark.parametrize("what", ["rows", "base"])
def test_changed_contents_are_refused(broken: Path, what: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(broken, copy)
    if what == "rows":
        lines = (copy / "train.jsonl").read_text().splitlines()
        (copy / "train.jsonl").write_text("\n".join(reversed(lines)) + "\n")
        says = "data.train: the training rows are not those the run began with"
    else:
        shutil.rmtree(copy / "base")
        from tests.tiny import tiny_llama

        save_tiny(copy / "base", tiny_llama(seed=9))
        says = "model: the base model is not the one the run began with"
    with pytest.raises(ResumeError, match=says):
        run(copy, "broken", wanted=RESUME)


def test_a_damaged_checkpoint_is_skipped_and_named(broken: Path) -> None:
    shutil.copytree(broken / "broken", broken / "damaged")
    with pytest.raises(Crash):
        run(broken, "damaged", "logging.steps=1", wanted=RESUME, display=Breaking(crash, step=6))
    newest = max((broken / "damaged" / "checkpoints").iterdir())
    file = newest / "training.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    display = Breaking(crash)
    run(broken, "damaged", wanted=RESUME, display=display)
    assert any(newest.name in line and "skipped" in line for line in display.lines)
    mine = (broken / "damaged" / "adapter" / "adapter_model.safetensors").read_bytes()
    assert mine == (broken / "straight" / "adapter" / "adapter_model.safetensors").read_bytes()


def test_where_every_checkpoint_is_damaged_nothing_begins_again(broken: Path) -> None:
    shutil.copytree(broken / "broken", broken / "all damaged")
    files = sorted((broken / "all damaged").glob("checkpoints/*/state.json"))
    for file in files:
        file.write_text(file.read_text() + " ")
    for wanted, setting in ((RESUME, "never"), (BEGIN, "auto")):
        with pytest.raises(ModelError, match=r"checkpoints/step-\d+: state.json has") as caught:
            run(broken, "all damaged", f"checkpoint.resume={setting}", wanted=wanted)
        assert len(caught.value.faults) == len(files)
        assert "to begin again remove" in caught.value.faults[-1].hint
    shutil.rmtree(broken / "all damaged" / "checkpoints")
    assert run(broken, "all damaged", wanted=RESUME)[1] == 0
    equal(broken, "all damaged")


def test_every_error_of_resuming_is_ours(broken: Path) -> None:
    shutil.copytree(broken / "broken", broken / "odd")
    for path in (broken / "odd" / "checkpoints").iterdir():
        shutil.rmtree(path)
    (broken / "odd" / "report.json").write_text("{")
    with pytest.raises(QtuneError, match=r"report\.json"):
        run(broken, "odd", wanted=RESUME)
