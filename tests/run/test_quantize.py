"""`qtune quantize`, and the loads that find its copies by themselves."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
import torch

from qtune.cli.app import run_app
from qtune.models import base as models_base
from qtune.ops.linears import linear_modules
from tests.models.workshop import load_folder
from tests.run.made_run import write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "qtune" / "models"


def _weights(base: models_base.Base) -> list[torch.Tensor]:
    return [module.weight for module in linear_modules(base.model).values()]  # type: ignore[misc]


def test_a_copy_in_the_cache_is_taken_by_itself(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_tiny(tmp_path / "base")
    plain = load_folder(source, compute_dtype="bfloat16")
    assert plain.copy is None
    assert run_app(["quantize", str(source), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (folder,) = cache.iterdir()
    assert report["output"] == str(folder)
    assert report["layers"] == 14
    assert report["written"]
    found = load_folder(source, compute_dtype="bfloat16")
    assert found.copy == folder
    assert found.fingerprint == plain.fingerprint
    assert all(map(torch.equal, _weights(found), _weights(plain)))
    for other in ({"double_quant": False}, {"skip_modules": ["o_proj"]}, {"bits": 8}):
        assert load_folder(source, compute_dtype="bfloat16", **other).copy is None
    assert load_folder(source, compute_dtype="float32").copy is None
    assert run_app(["quantize", str(source), "--json", "-q"]) == 0
    assert not json.loads(capsys.readouterr().out)["written"]


def test_settings_are_those_of_a_recipe(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_tiny(tmp_path / "base")
    settings = ["--set", "quantization.double_quant=false", "--set", "quantization.quant_type=fp4"]
    assert run_app(["quantize", str(source), *settings]) == 0
    assert "14 layers in fp4" in capsys.readouterr().out
    settings = {"double_quant": False, "quant_type": "fp4", "compute_dtype": "bfloat16"}
    assert load_folder(source, **settings).copy == next(cache.iterdir())


def test_a_copy_that_was_changed_is_told_of_and_made_again(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = save_tiny(tmp_path / "base")
    assert run_app(["quantize", str(source), "-q"]) == 0
    (folder,) = cache.iterdir()
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="qtune"):
        assert load_folder(source, compute_dtype="bfloat16").copy is None
    assert "is not used: its files were changed" in caplog.text
    assert run_app(["quantize", str(source), "-q"]) == 0
    assert load_folder(source, compute_dtype="bfloat16").copy == folder


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = save_tiny(tmp_path / "base"), tmp_path / "copy"
    command = ["quantize", str(source), "-o", str(target), "-q"]
    assert run_app([*command, "--set", "train.seed=3"]) == 2
    assert run_app([*command, "--set", "quantization.bits=5"]) == 2
    assert run_app([*command, "--set", "quantization.bits=8"]) == 2
    assert run_app(["quantize", str(source), "-o", str(source / "copy"), "-q"]) == 7
    assert not target.exists()
    assert run_app(command) == 0
    assert run_app(command) == 7
    assert run_app(["quantize", str(target), "-q"]) == 4
    assert run_app(["quantize", str(tmp_path / "none"), "-q"]) in (2, 4)
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "is quantised already" in shown


def test_training_on_a_copy_is_training_on_its_source(tmp_path: Path) -> None:
    save_tiny(tmp_path / "base")
    write_rows(tmp_path / "train.jsonl", 8)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {name_or_path: ./base}\n"
        "method: {name: lora, rank: 4, dropout: 0.1}\n"
        "data: {train: [{path: train.jsonl}], max_length: 64}\n"
        "train: {max_steps: 2, batch_size: 4}\n"
    )
    train = ["train", str(recipe), "-q", "-o"]
    assert run_app([*train, str(tmp_path / "first")]) == 0
    assert run_app(["quantize", str(tmp_path / "base"), "-q"]) == 0
    assert run_app([*train, str(tmp_path / "second")]) == 0
    first, second = (
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("first", "second")
    )
    assert first == second
    said = "read from its quantised copy"
    assert said in (tmp_path / "second" / "log.txt").read_text()
    assert said not in (tmp_path / "first" / "log.txt").read_text()
