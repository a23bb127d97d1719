"""One base, one fingerprint; another base, another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qtune.models import fingerprint
from tests.models.workshop import edit_config, edit_tensors, load_folder
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path


def test_shards_and_versions_do_not_count(folder: Path, sharded: Path) -> None:
    assert fingerprint(folder) == fingerprint(sharded)
    edit_config(folder, transformers_version="5.0.0", _name_or_path="elsewhere")
    assert fingerprint(folder) == fingerprint(sharded)
    assert len(fingerprint(folder)) == 64


def test_quantisation_does_not_count(folder: Path) -> None:
    found = {load_folder(folder, bits=bits).fingerprint for bits in (4, 8, 16)}
    assert found == {fingerprint(folder)}


def test_weights_config_and_names_count(folder: Path, tmp_path: Path) -> None:
    seen = {fingerprint(folder), fingerprint(save_tiny(tmp_path / "other", tiny_llama(seed=1)))}

    def change_last(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"][-1] += 1

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        tensors["norm.weight"] = tensors.pop("model.norm.weight")

    seen.add(fingerprint(edit_tensors(folder, change_last)))
    seen.add(fingerprint(edit_tensors(folder, rename)))
    seen.add(fingerprint(edit_config(folder, rms_norm_eps=1e-5)))
    assert len(seen) == 5
