"""Whole runs under a teacher: what they need, what is refused, and that a stop changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from qtune import methods, models, plan, recipe
from qtune.cli.app import run_app
from qtune.data.batch import collate
from qtune.data.rows import EncodedRow
from qtune.losses import Teacher
from qtune.run.shapes import shape_for
from tests.run.made_run import write_rows
from tests.tiny import save_tiny, tiny_llama, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 4, "alpha": 8, "dropout": 0.1},
    "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
    "loss": {"teacher": "large", "soft_share": 0.9},
    "optim": {"name": "adamw", "learning_rate": 1e-2},
    "train": {"batch_size": 4, "max_steps": 4},
    "memory": {"micro_batch_size": 2},
    "checkpoint": {"save_steps": 2},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "base")
    save_tiny(tmp_path / "large", tiny_llama(3, hidden_size=128, vocab_size=384))
    write_rows(tmp_path / "train.jsonl", 20)
    write_rows(tmp_path / "test.jsonl", 5, first=100)
    _write(tmp_path)
    return tmp_path


def _write(folder: Path, **sections: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, **sections}))
    return path


def _train(folder: Path, name: str, *settings: str) -> tuple[int, Any]:
    words = [word for setting in settings for word in ("--set", setting)]
    resume = ["--resume"] if (folder / name).exists() else []
    code = run_app(
        ["train", str(folder / "recipe.yaml"), "-q", "-o", str(folder / name), *words, *resume]
    )
    path = folder / name / "adapter" / "adapter_model.safetensors"
    return code, load_file(path) if path.exists() else {}


def _losses(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["kind"] in ("train", "eval")]


def test_a_teacher_beside_its_student_changes_what_is_learnt_not_what_is_measured(
    folder: Path,
) -> None:
    taught = _train(folder, "taught")[1]
    _write(folder, loss={})
    plain = _train(folder, "plain")[1]
    assert not any(torch.equal(tensor, plain[name]) for name, tensor in taught.items())
    evaluated, learnt = (
        [_losses(folder, name)[row] for name in ("plain", "taught")] for row in (0, 1)
    )
    assert evaluated[0]["loss"] == evaluated[1]["loss"]
    assert learnt[0]["loss"] != learnt[1]["loss"]


def test_a_stopped_run_goes_on_as_one_that_was_not(folder: Path) -> None:
    _write(folder, optim={**SETTINGS["optim"], "lr_scheduler_type": "constant"})
    whole = _train(folder, "whole")[1]
    assert _train(folder, "parts", "train.max_steps=2")[0] == 0
    code, parts = _train(folder, "parts")
    assert code == 0
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def test_another_teacher_of_the_same_name_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(folder, "run", "train.max_steps=2")[0] == 0
    save_tiny(folder / "large", tiny_llama(4, hidden_size=128, vocab_size=384))
    assert _train(folder, "run")[0] == 8
    assert "teacher: the teacher is not the one the run began with" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [
        ("data.packing=true",),
        ("memory.activations=layer", "loss.divergence=reverse"),
        ("memory.kernels=plain", "loss.teacher_bits=16"),
    ],
)
def test_every_way_learns(folder: Path, settings: tuple[str, ...]) -> None:
    for name, teacher in (("other", folder / "large"), ("own", "base")):
        read = [each for each in settings if teacher != "base" or "bits" not in each]
        assert _train(folder, name, f"loss.teacher={teacher}", *read)[0] == 0
        report = json.loads((folder / name / "report.json").read_text())
        assert report["loss_last"] < report["loss_first"]


@pytest.mark.parametrize("name", ["lora", "prompt", "prefix", "bottleneck", "bitfit", "dylora"])
def test_the_base_that_teaches_is_the_base(folder: Path, name: str) -> None:
    asked = recipe.load(_write(folder, method={"name": name}, loss={"teacher": "base"})).recipe
    device = torch.device("cpu")
    base = models.load(asked.model, asked.quantization, device=device, activations="none")
    rows = [EncodedRow([5, 6, 7, 8, 9], [-100, -100, 7, 8, 9], "row")]
    batch = collate(rows, pad_id=2)
    alone = Teacher(base.model).hidden(batch)
    method = methods.create(asked.method, seed=0)
    method.attach(base.model, tokenizer=tiny_tokenizer())
    with torch.no_grad():
        for parameter in method.parameters().values():
            parameter.add_(0.5 * torch.randn_like(parameter))
    base.model.train()
    teacher = Teacher(base.model, alone=method.disabled)
    assert torch.equal(teacher.hidden(batch), alone)
    assert not torch.equal(Teacher(base.model).hidden(batch), alone)


def test_another_vocabulary_is_refused_before_weights_are_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_tokenizer()
    other.add_tokens(["<new>"])
    other.save_pretrained(folder / "large")
    (folder / "large" / "model.safetensors").unlink()
    assert _train(folder, "run")[0] == 4
    told = capsys.readouterr().err
    assert "another vocabulary: 1 tokens differ, such as '<new>' (none here, id 259" in told
    assert "loss.teacher" in told
    assert not (folder / "run").exists()


def test_the_plan_counts_what_is_loaded(folder: Path) -> None:
    machine = plan.Machine.probe()
    found, seconds = {}, []
    for teacher in (None, "base", "large"):
        loss = {"teacher": teacher} if teacher else {}
        asked = recipe.load(_write(folder, loss=loss)).recipe
        made = plan.make(asked, machine, shape_for(asked))
        found[teacher] = {item.part: item.bytes for item in made.memory}
        seconds.append(made.seconds_per_step)
    assert seconds == sorted(set(seconds))
    extra = {name: {*found[name]} - {*found[None]} for name in ("base", "large")}
    assert extra["base"] == {"teacher's hidden states", "teacher's logits"}
    assert "teacher" in extra["large"]
    assert asked.loss.teacher == str(folder / "large")
    section = asked.model.model_copy(update={"name_or_path": asked.loss.teacher})
    held = plan.teacher_quantization(asked, shape_for(asked).teacher)
    loaded = models.load(section, held, device=torch.device("cpu"), activations="none")
    size = sum(row.bytes for row in loaded.inventory.rows)
    assert found["large"]["teacher"] == pytest.approx(size, rel=0.01)


def test_a_teacher_that_is_not_there_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(folder, "run", f"loss.teacher={folder / 'nowhere'}")[0] != 0
    assert "loss.teacher" in capsys.readouterr().err


def test_nothing_to_learn_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(folder, "run", "loss.teacher=base", "loss.soft_share=1.0")[0] == 2
    assert "nothing to learn" in capsys.readouterr().err
