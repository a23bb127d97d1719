"""`qtune data teach`, and whole runs that learn from what it wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from qtune.cli.app import run_app
from qtune.data import lesson_writer
from tests.tiny import save_tiny, tiny_llama, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 4, "alpha": 8, "dropout": 0.0},
    "data": {"train": [{"path": "train.jsonl"}]},
    "loss": {"teacher": "large", "soft_share": 0.9},
    "optim": {"name": "adamw", "learning_rate": 1e-2},
    "train": {"batch_size": 4, "max_steps": 4},
    "memory": {"micro_batch_size": 2},
    "checkpoint": {"steps": 2},
}
EXACT = ("--top", "1000", "--dtype", "float32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "base")
    save_tiny(tmp_path / "large", tiny_llama(3, hidden_size=128, vocab_size=384))
    rows = [
        {"prompt": f"What is said to all is the same for all: {n} ->", "completion": f" {n} {n}"}
        for n in range(20)
    ]
    lines = [json.dumps(row) for row in [*rows, rows[3]]]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    return tmp_path


def _teach(folder: Path, *words: str) -> int:
    recipe = str(folder / "recipe.yaml")
    return run_app(["data", "teach", recipe, "-q", "-o", str(folder / "lessons"), *words])


def _train(folder: Path, name: str, *settings: str) -> tuple[int, Any]:
    words = [word for setting in settings for word in ("--set", setting)]
    resume = ["--resume"] if (folder / name).exists() else []
    path = folder / "recipe.yaml"
    code = run_app(["train", str(path), "-q", "-o", str(folder / name), *words, *resume])
    saved = folder / name / "adapter" / "adapter_model.safetensors"
    return code, load_file(saved) if saved.exists() else {}


def _losses(folder: Path, name: str) -> list[float]:
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row["loss"] for row in rows if row["kind"] == "train"]


def _learn_from_lessons(folder: Path) -> str:
    return f"loss.teacher={folder / 'lessons'}"


@pytest.mark.parametrize("packed", ["false", "true"])
def test_all_that_a_teacher_says_is_as_good_as_the_teacher(folder: Path, packed: str) -> None:
    assert _teach(folder, *EXACT) == 0
    packing = f"data.packing={packed}"
    code, online = _train(folder, "online", packing)
    assert code == 0
    (folder / "large" / "model.safetensors").unlink()  # nobody needs it any more
    code, offline = _train(folder, "offline", packing, _learn_from_lessons(folder))
    assert code == 0
    assert _losses(folder, "offline") == pytest.approx(_losses(folder, "online"), rel=1e-5)
    for name, tensor in online.items():
        torch.testing.assert_close(offline[name], tensor, rtol=1e-3, atol=1e-4)
    log = (folder / "offline" / "log.txt").read_text()
    assert ("computed once" in log) == (packed == "true")


def test_packed_is_padded(folder: Path) -> None:
    assert _teach(folder, "--top", "8") == 0
    lessons = _learn_from_lessons(folder)
    assert _train(folder, "padded", lessons)[0] == 0
    ways = {"packed": ("data.share_prefixes=false",), "shared": ()}
    for name, settings in ways.items():
        assert _train(folder, name, lessons, "data.packing=true", *settings)[0] == 0
        assert _losses(folder, name) == pytest.approx(_losses(folder, "padded"), rel=1e-4)


def test_a_stopped_run_goes_on_as_one_that_was_not(folder: Path) -> None:
    assert _teach(folder, "--top", "8") == 0
    settings = [_learn_from_lessons(folder), "optim.lr_scheduler_type=constant"]
    whole = _train(folder, "whole", *settings)[1]
    assert _train(folder, "parts", *settings, "train.max_steps=2")[0] == 0
    code, parts = _train(folder, "parts", *settings)
    assert code == 0
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def test_a_stopped_teacher_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qtune.run.teach.PASS_TOKENS", {"cpu": 300, "cuda": 300})
    monkeypatch.setattr(lesson_writer, "PART_BYTES", 1)
    assert _teach(folder) == 0
    whole = json.loads((folder / "lessons" / "lessons.json").read_text())
    assert len(whole["parts"]) > 2
    (folder / "lessons").rename(folder / "before")

    kept = lesson_writer.LessonWriter.pause

    def stopped(self: lesson_writer.LessonWriter, *, last: bool = False) -> None:
        kept(self, last=last)
        if self.done:
            raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(lesson_writer.LessonWriter, "pause", stopped)
        assert _teach(folder) == 1
    assert _train(folder, "run", _learn_from_lessons(folder))[0] == 4
    assert "is not whole" in capsys.readouterr().err
    assert _teach(folder, "--top", "3") == 8
    assert "begun with another top" in capsys.readouterr().err
    assert _teach(folder) == 0
    again = json.loads((folder / "lessons" / "lessons.json").read_text())
    assert again == whole
    assert _teach(folder) == 7


def test_another_row_tokenizer_or_temperature_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _teach(folder, "--top", "8") == 0
    lessons = _learn_from_lessons(folder)
    assert _train(folder, "run", lessons, "loss.temperature=1.0")[0] == 2
    assert "the lessons are of 2" in capsys.readouterr().err
    assert _train(folder, "run", lessons, "loss.train_on=all")[0] == 3
    assert "train.jsonl:1: the teacher has not seen this row" in capsys.readouterr().err
    text = (folder / "train.jsonl").read_text()
    (folder / "train.jsonl").write_text(text.replace("7 ->", "seven ->", 1))
    assert _train(folder, "run", lessons)[0] == 3
    told = capsys.readouterr().err
    assert "train.jsonl:8: the teacher has not seen this row" in told
    assert "1 of 21 rows" in told
    (folder / "train.jsonl").write_text(text)
    other = tiny_tokenizer()
    other.add_tokens(["<new>"])
    other.save_pretrained(folder / "base")
    assert _train(folder, "run", lessons)[0] == 4
    assert "another tokenizer" in capsys.readouterr().err
    assert not (folder / "run").exists()


def test_a_changed_byte_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _teach(folder, "--top", "8") == 0
    part = folder / "lessons" / "part-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-1] + b"\x01")
    assert _train(folder, "run", _learn_from_lessons(folder))[0] == 4
    assert "is not what was written" in capsys.readouterr().err


@pytest.mark.parametrize("teacher", ["large", "lessons"])
def test_the_lock_holds_the_teacher(
    folder: Path, teacher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _teach(folder, "--top", "8") == 0
    named = f"loss.teacher={folder / teacher}"
    assert _train(folder, "run", named, "train.max_steps=1")[0] == 0
    lock = str(folder / "run" / "recipe.lock.yaml")
    assert run_app(["train", lock, "-q", "-o", str(folder / "again")]) == 0
    save_tiny(folder / "large", tiny_llama(4, hidden_size=128, vocab_size=384))
    if teacher == "lessons":
        (folder / "lessons").rename(folder / "before")
        assert _teach(folder, "--top", "8") == 0
    capsys.readouterr()
    assert run_app(["train", lock, "-q", "-o", str(folder / "other")]) == 8
    assert "pins.teacher: has changed" in capsys.readouterr().err
    assert not (folder / "other").exists()


def test_the_base_can_write(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _teach(folder, "--set", "loss.teacher=base", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["top"], report["complete"]) == (20, 64, True)
    assert _train(folder, "run", _learn_from_lessons(folder))[0] == 0


def test_what_cannot_teach_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _teach(folder, "--set", "loss.teacher=null", "--set", "loss.soft_share=null") == 2
    assert "no teacher is named" in capsys.readouterr().err
    (folder / "lessons").mkdir()
    (folder / "lessons" / "notes.txt").write_text("mine")
    assert _teach(folder) == 7
    assert "holds something else" in capsys.readouterr().err
