"""Adapter folders: written whole, read with suspicion."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from qtune import methods
from qtune.errors import ExitCode, ModelError, OutputError
from qtune.recipe.methods import LoraConfig
from tests.methods.bases import CASES, attached, randomise
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def base(**overrides: Any) -> Any:
    return tiny_llama(**overrides).requires_grad_(False)


def write(folder: Path, config: LoraConfig | None = None, **changes: Any) -> Path:
    method = attached(base(), config or LoraConfig(rank=4, alpha=8.0))
    randomise(method)
    facts: dict[str, Any] = {"base_model": "tiny", "base_fingerprint": "0123", **changes}
    methods.save(folder, method, **facts)
    return folder


def open_it(folder: Path, **overrides: Any) -> None:
    methods.read(folder).attach(base(**overrides), base_fingerprint="0123")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(
    folder: Path,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    *,
    keep_facts: bool = False,
) -> None:
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    tensors = change(load_file(folder / WEIGHTS))
    save_file(tensors, folder / WEIGHTS, metadata=metadata if keep_facts else None)


def broken(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    next(iter(tensors.values()))[0, 0] = float("nan")
    return tensors


def flip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    next(iter(tensors.values())).view(torch.int32)[0, 0] ^= 1
    return tensors


def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(tensors.items())[::2])


def unprefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}


def cut(folder: Path, name: str, share: float) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])


def pointer(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def as_bin(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def bin_pointer(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    pointer(folder, "adapter_model.bin")


TAMPERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "lost prefix": (lambda f: edit_tensors(f, unprefixed), "do not begin with"),
    "no tensors": (lambda f: edit_tensors(f, lambda _: {}), "holds no tensors"),
    "empty file": (lambda f: cut(f, WEIGHTS, 0.0), "not a whole safetensors"),
    "truncated": (lambda f: cut(f, WEIGHTS, 0.6), "not a whole safetensors"),
    "half the keys": (lambda f: edit_tensors(f, half), "missing"),
    "NaN": (lambda f: edit_tensors(f, broken), "NaN or infinity"),
    "one bit": (lambda f: edit_tensors(f, flip, keep_facts=True), "sha256"),
    "alpha edited": (lambda f: edit_config(f, lora_alpha=16.0), "lora_alpha is 16.0, trained with"),
    "rank edited": (lambda f: edit_config(f, r=8), "r is 8, trained with 4"),
    "rank edited, no facts": (
        lambda f: (edit_config(f, r=8), edit_tensors(f, lambda tensors: tensors)),
        "another shape: .* 4x64 instead of 8x64",
    ),
    "scale switched": (lambda f: edit_config(f, use_rslora=True), "use_rslora"),
    "unknown switch": (lambda f: edit_config(f, use_qalora=True), "use_qalora"),
    "target added": (
        lambda f: (
            edit_config(f, target_modules=["q_proj", "k_proj"]),
            edit_tensors(f, lambda tensors: tensors),
        ),
        "no place in this model",
    ),
    "other kind": (lambda f: edit_config(f, peft_type="LOHA"), "LOHA"),
    "git-lfs pointer": (lambda f: pointer(f, WEIGHTS), "git-lfs"),
    "git-lfs pointer of a pickle": (bin_pointer, "git-lfs"),
    "pickle": (as_bin, "never reads"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "no adapter_model"),
    "no config": (lambda f: (f / CONFIG).unlink(), "no adapter_config"),
    "cut config": (lambda f: cut(f, CONFIG, 0.5), "not valid JSON"),
    "config is a list": (lambda f: (f / CONFIG).write_text("[]"), "not a JSON object"),
    "bytes for text": (lambda f: (f / CONFIG).write_bytes(b"\xff\xfe\x00"), "not valid JSON"),
    "whole numbers": (
        lambda f: edit_tensors(f, lambda t: {name: one.to(torch.int8) for name, one in t.items()}),
        "not floating point",
    ),
    "no folder": (lambda f: f.rename(f.with_name("gone")), "no such folder"),
}


@pytest.mark.parametrize("tamper", TAMPERS)
def test_every_tamper_is_refused(tamper: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    open_it(folder)
    damage, message = TAMPERS[tamper]
    damage(folder)
    with pytest.raises(ModelError, match=message) as refused:
        open_it(folder)
    assert refused.value.code is ExitCode.MODEL
    assert 1 <= len(str(refused.value).splitlines()) <= 3


def test_damaged_facts_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    for text in ("{", "{}", "[]"):
        save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, metadata={"qtune": text})
        with pytest.raises(ModelError, match="metadata is damaged"):
            methods.read(folder)


def test_another_base_is_refused(tmp_path: Path) -> None:
    file = methods.read(write(tmp_path / "a"))
    assert file.base_fingerprint == "0123"
    with pytest.raises(ModelError, match="another base"):
        file.attach(base(), base_fingerprint="4567")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"hidden_size": 128}, "another shape"), ({"num_hidden_layers": 1}, "no place")],
)
def test_a_base_of_another_size_is_refused(
    overrides: dict[str, int], message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "a")
    model = base(**overrides)
    with pytest.raises(ModelError, match=message):
        methods.read(folder).attach(model, base_fingerprint=None)
    assert not any(tensor.requires_grad for tensor in model.parameters())


def test_an_adapter_for_other_layers_is_a_model_error(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", LoraConfig(rank=2, layers_to_transform=(1,)))
    with pytest.raises(ModelError, match="does not fit this model"):
        open_it(folder, num_hidden_layers=1)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OutputError, match="holds an adapter already"):
        write(folder, CASES["dora"])  # type: ignore[arg-type]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    write(folder, CASES["dora"], replace=True)  # type: ignore[arg-type]
    assert methods.read(folder).raw["use_dora"] is True
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, CONFIG}
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        write(tmp_path / "file")


@pytest.mark.parametrize("kill", range(4))
def test_a_death_on_the_way_leaves_no_wrong_adapter(
    kill: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync is called four times: file, folder, file, folder; the process dies in one of them."""
    folder = write(tmp_path / "a")
    old = methods.read(folder)
    calls = iter(range(9))

    def dies(_: int) -> None:
        if next(calls) == kill:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", dies)
    with pytest.raises(KeyboardInterrupt):
        write(folder, LoraConfig(rank=4, alpha=32.0), replace=True)
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, CONFIG}
    if kill in (1, 2):  # new weights, old config
        with pytest.raises(ModelError, match="does not belong to the weights"):
            methods.read(folder)
    else:
        found = methods.read(folder)
        assert found.raw["lora_alpha"] == (old.raw["lora_alpha"] if kill == 0 else 32.0)


def test_no_path_of_this_machine_is_written(tmp_path: Path) -> None:
    note = {"data": [{"path": "/disk/me/train.jsonl"}], "rank": 4, "id": "owner/name"}
    folder = write(tmp_path / "a", base_model="/disk/me/models/Tiny-1B", recipe_note=note)
    for path in folder.iterdir():
        assert b"/disk" not in path.read_bytes()
    file = methods.read(folder)
    assert file.base_model == "Tiny-1B"
    assert file.facts["recipe"] == {
        "data": [{"path": "train.jsonl"}],
        "rank": 4,
        "id": "owner/name",
    }


def test_the_dtype_comes_back(tmp_path: Path) -> None:
    config = LoraConfig(rank=2, dtype="bfloat16", target_modules=("q_proj",))
    file = methods.read(write(tmp_path / "a", config))
    assert isinstance(file.config, LoraConfig)
    assert file.config.dtype == "bfloat16"
    again = file.attach(base(), base_fingerprint="0123")
    assert all(torch.equal(t, file.tensors[n]) for n, t in again.adapter_state().items())


def test_edits_of_a_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", LoraConfig(rank=2, target_modules=("q_proj",)))
    assert set(methods.read(folder).merge_edits()) == {
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
    }
