"""Several adapters merged at once, and the base that suits better."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from qtune import methods
from qtune.errors import ModelError, UsageError
from qtune.run.combined import Asked, write_adapter
from qtune.run.display import Quiet
from qtune.run.merge import merge
from tests.run.made_run import make_run
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

SHARES = (0.7, 0.3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on one base."""
    folder = tmp_path_factory.mktemp("several")
    make_run(folder, model=tiny_llama(initializer_range=0.1))
    (folder / "run").rename(folder / "one")
    other = tmp_path_factory.mktemp("other")
    make_run(other, model=tiny_llama(initializer_range=0.1), size=0.1)
    shutil.copytree(other / "run", folder / "two")
    return folder


def change(folder: Path) -> dict[str, torch.Tensor]:
    adapter = methods.read(folder / "adapter" if (folder / "adapter").is_dir() else folder)
    edits = adapter.merge_edits()
    return {name: edit.apply(torch.zeros(edit.shape or ())) for name, edit in edits.items()}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return dict(model.named_parameters())


def test_the_weighted_sum_is_merged_and_verified(place: Path, tmp_path: Path) -> None:
    asked = Asked((str(place / "two"),), "cat", SHARES)
    report = merge(str(place / "one"), tmp_path / "both", asked=asked, display=Quiet())
    assert report["combined"]["weights"] == list(SHARES)
    assert report["verification"]["kl"] <= 1e-6
    merge(str(place / "one"), tmp_path / "one", display=Quiet(), verify=False)
    alone, both = weights(tmp_path / "one"), weights(tmp_path / "both")
    one, two = change(place / "one"), change(place / "two")
    assert one.keys() == two.keys()
    for name, value in both.items():
        if name not in one:
            assert torch.equal(value, alone[name])
            continue
        wanted = alone[name] - one[name] + SHARES[0] * one[name] + SHARES[1] * two[name]
        assert torch.allclose(value, wanted, atol=1e-5), name


def test_the_adapter_alone(place: Path, tmp_path: Path) -> None:
    asked = Asked((str(place / "two"),), "svd", SHARES)
    report = write_adapter(str(place / "one"), tmp_path / "adapter", asked)
    assert (report["rank"], report["weights"]) == (4, [0.7, 0.3])
    merged = merge(
        str(tmp_path / "adapter"),
        tmp_path / "again",
        base=str(place / "base"),
        settings={"dtype": "float32"},
        display=Quiet(),
    )
    assert merged["verification"]["kl"] <= 1e-6
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"


def test_adapters_of_other_bases_are_refused(place: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", model=tiny_llama(seed=9))
    with pytest.raises(ModelError, match="another base model"):
        merge(str(place / "one"), tmp_path / "out", asked=Asked((str(other),)), display=Quiet())
    dense = make_run(
        tmp_path / "dense",
        model=tiny_llama(initializer_range=0.1),
        quantization={"bits": 16, "compute_dtype": "float32"},
    )
    with pytest.raises(ModelError, match="another quantisation"):
        merge(str(place / "one"), tmp_path / "out", asked=Asked((str(dense),)), display=Quiet())
    assert not (tmp_path / "out").exists()


def test_auto_takes_the_base_of_the_lower_loss(place: Path, tmp_path: Path) -> None:
    from qtune import data, models, recipe

    report = merge(
        str(place / "one"), tmp_path / "auto", settings={"base": "auto"}, display=Quiet()
    )
    asked = recipe.load(place / "one" / "recipe.yaml").recipe
    rows = list(data.read_eval(asked.data.eval, asked, models.load_tokenizer(asked.model)))
    losses: dict[str, float] = {}
    for base in ("dequantized", "original"):
        settings: dict[str, Any] = {"base": base}
        merge(str(place / "one"), tmp_path / base, settings=settings, display=Quiet(), verify=False)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / base, dtype=torch.float32)
        total, count = 0.0, 0
        for row in rows:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
            labels = torch.tensor(row.labels[1:])
            total += float(functional.cross_entropy(logits, labels, reduction="sum"))
            count += int((labels != -100).sum())
        losses[base] = total / count
    assert report["auto"]["losses"] == pytest.approx(losses, abs=1e-5)
    better = min(losses, key=lambda base: losses[base])
    assert report["base"] == report["auto"]["base"] == better
    assert report["auto"]["better_by"] == pytest.approx(
        abs(losses["original"] - losses["dequantized"]), abs=1e-5
    )
    found, wanted = weights(tmp_path / "auto"), weights(tmp_path / better)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    lone = tmp_path / "lone"
    shutil.copytree(place / "one" / "adapter", lone)
    with pytest.raises(UsageError, match="held-out rows"):
        merge(
            str(lone),
            tmp_path / "none",
            base=str(place / "base"),
            settings={"base": "auto"},
            display=Quiet(),
        )
