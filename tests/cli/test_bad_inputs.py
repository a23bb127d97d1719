"""What people get wrong: one to three lines, the right exit code, and nothing left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from qtune.cli.app import run_app
from tests.run.made_run import write_rows
from tests.tiny import save_tiny, tiny_llama


@dataclass(frozen=True)
class Case:
    """A fault put into a sound folder, and what must be said about it."""

    code: int
    says: str
    break_it: Callable[[Path], Any] = lambda _: None
    set: tuple[str, ...] = ()
    recipe: str = "recipe.yaml"


def _text(name: str, content: str | bytes) -> Callable[[Path], Any]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def _rows(*rows: Any) -> Callable[[Path], Any]:
    return _text("train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _section(section: str, **keys: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        settings = yaml.safe_load((folder / "recipe.yaml").read_text())
        settings[section] = settings.get(section, {}) | keys
        (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))

    return change


def _config(**keys: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        path = folder / "base" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return change


def _cut(name: str, size: int) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def _lose_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "base" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


def _put_a_nan(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "base" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})


WEIGHTS = "base/model.safetensors"
GIT_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
CASES = {
    # the recipe
    "no recipe": Case(2, "no such", recipe="recipes.yaml"),
    "a folder": Case(2, "folder", recipe="."),
    "an empty file": Case(2, "empty", _text("recipe.yaml", "")),
    "a JSON list": Case(2, "list", _text("recipe.yaml", "[1, 2]")),
    "a conda environment": Case(
        2,
        "not a recipe",
        _text("recipe.yaml", "name: qlora\nchannels: [x]\ndependencies: [python]\n"),
    ),
    "a weight file": Case(2, "", recipe=WEIGHTS),
    "not YAML": Case(2, "recipe.yaml:2", _text("recipe.yaml", "model: [unclosed\n")),
    "misspelt key": Case(2, "did you mean learning_rate", _section("optim", learning_rat=1)),
    "another section's key": Case(2, "method", _section("optim", rank=8)),
    "unknown section": Case(2, "did you mean optim", _section("optimm", name="adamw")),
    "a word for a number": Case(2, "learning_rate", set=("optim.learning_rate=fast",)),
    "a share above one": Case(2, "dropout", set=("method.dropout=2",)),
    "a batch of nothing": Case(2, "batch_size", set=("train.batch_size=0",)),
    "half a step": Case(2, "max_steps", set=("train.max_steps=2.5",)),
    "unknown method": Case(2, "did you mean lora", set=("method.name=lroa",)),
    "a quantisation nobody has": Case(2, "nf4", set=("quantization.quant_type=nf5",)),
    "set without a value": Case(2, "--set", set=("optim.learning_rate",)),
    "a target that matches nothing": Case(2, "q_proj", set=("method.target_modules=[qproj]",)),
    "a module to skip that is not there": Case(
        2, "q_proj", set=("quantization.skip_modules=[qq]",)
    ),
    "a tracker that is not installed": Case(
        2, "logging.report_to: comet_ml is not", set=("logging.report_to=[comet_ml]",)
    ),
    # the data
    "no data file": Case(3, "nope.jsonl", set=("data.train.0.path=./nope.jsonl",)),
    "an empty data file": Case(3, "train.jsonl", _text("train.jsonl", "")),
    "a broken line": Case(
        3, "train.jsonl:2", _text("train.jsonl", '{"prompt": "a", "completion": "b"}\n{"prom\n')
    ),
    "a line that is no object": Case(3, "train.jsonl:1", _text("train.jsonl", "[1]\n")),
    "not UTF-8": Case(3, "train.jsonl:1", _text("train.jsonl", b'{"prompt": "\xe9"}\n')),
    "wrong columns": Case(3, "question", _rows({"question": "a", "reply": "b"})),
    "a number as completion": Case(3, "train.jsonl:1", _rows({"prompt": "a", "completion": 5})),
    "a missing completion": Case(
        3, "train.jsonl:2", _rows({"prompt": "a", "completion": "b"}, {"prompt": "a"})
    ),
    "every completion empty": Case(
        3, "train.jsonl:3", _rows(*[{"prompt": "a", "completion": ""}] * 3)
    ),
    "no assistant turn": Case(
        3, "assistant", _rows({"messages": [{"role": "user", "content": "a"}]})
    ),
    "an unknown role": Case(3, "role", _rows({"messages": [{"role": "teacher", "content": "a"}]})),
    "every row too long": Case(3, "max_length", set=("data.max_length=2",)),
    # the model
    "no model folder": Case(4, "nowhere", set=("model.name_or_path=./nowhere",)),
    "no config": Case(4, "config.json", lambda f: (f / "base/config.json").unlink()),
    "a broken config": Case(4, "config.json", _cut("base/config.json", 40)),
    "a config without a size": Case(4, "hidden_size", _config(hidden_size=None)),
    "an unknown family": Case(4, "lama", _config(model_type="lama")),
    "no tokenizer": Case(4, "tokenizer", lambda f: (f / "base/tokenizer.json").unlink()),
    "a cut tokenizer": Case(4, "tokenizer.json", _cut("base/tokenizer.json", 500)),
    "no weights": Case(4, "weights", lambda f: (f / WEIGHTS).unlink()),
    "weights cut short": Case(4, "model.safetensors", _cut(WEIGHTS, 9000)),
    "weights of no byte": Case(4, "model.safetensors", _cut(WEIGHTS, 0)),
    "weights left in git-lfs": Case(4, "git-lfs", _text(WEIGHTS, GIT_LFS)),
    "a weight missing": Case(4, "up_proj", _lose_a_weight),
    "a NaN in the base": Case(4, "model.norm.weight", _put_a_nan),
    "weights of another size": Case(4, "", _config(intermediate_size=192)),
    # the machine
    "too little memory": Case(5, "needs", set=("memory.budget=1MB",)),
    "an output that is in use": Case(7, "not empty", _text("run/recipe.yaml", "x")),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    save_tiny(folder / "base", tiny_llama())
    write_rows(folder / "train.jsonl", 16)
    settings = {
        "model": {"name_or_path": "./base"},
        "method": {"name": "lora", "rank": 4},
        "data": {"train": [{"path": "./train.jsonl"}]},
        "train": {"max_steps": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(sound, copy)
    monkeypatch.chdir(copy)
    return copy


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_told_and_leaves_nothing(
    name: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    (folder / "run").mkdir()
    case.break_it(folder)
    before = _files(folder)
    settings = [part for setting in case.set for part in ("--set", setting)]
    code = run_app(["train", case.recipe, "-o", "run", "--quiet", *settings])
    said = capfd.readouterr()
    assert code == case.code, said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert case.says in said.err
    assert 1 <= len(said.err.strip().splitlines()) <= 3, said.err
    assert _files(folder) == before


def test_the_sound_folder_trains(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_app(["train", "recipe.yaml", "-o", "run", "--quiet"]) == 0
    assert (folder / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert capfd.readouterr().err == ""
