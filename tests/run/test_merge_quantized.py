"""A merged model that is quantised again: loads in plain transformers, and says what it lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM

from qtune.errors import UsageError
from qtune.ops.nf4 import bits_of
from qtune.run.display import Quiet
from qtune.run.merge import merge
from tests.run.made_run import make_run

if TYPE_CHECKING:
    from pathlib import Path

QUERY = "model.layers.0.self_attn.q_proj"


def test_nf4_is_made_of_the_merged_model_and_labelled(tmp_path: Path) -> None:
    run = make_run(tmp_path, quantization={"compute_dtype": "float32", "skip_modules": ["o_proj"]})
    dense = merge(str(run), tmp_path / "dense", display=Quiet())
    report = merge(str(run), tmp_path / "nf4", settings={"quantize": "nf4"}, display=Quiet())
    assert report["verification"]["kl"] <= 1e-6  # of what was quantised
    assert report["quantized"]["kl"] > 100 * dense["verification"]["kl"]
    config = json.loads((tmp_path / "nf4" / "config.json").read_text())
    assert config["qtune_lossy"]["kl"] == report["quantized"]["kl"]
    card = (tmp_path / "nf4" / "README.md").read_text()
    assert "lossy" in card
    assert f"{report['quantized']['kl']:.2e}" in card
    sizes = [
        sum(p.stat().st_size for p in (tmp_path / n).glob("*.safetensors"))
        for n in ("nf4", "dense")
    ]
    assert sizes[0] < 0.6 * sizes[1]
    assert not (tmp_path / "nf4" / "quantized").exists()

    model, facts = AutoModelForCausalLM.from_pretrained(tmp_path / "nf4", output_loading_info=True)
    assert not any(facts.values()), facts
    assert bits_of(model.get_submodule(QUERY)) == 4
    assert bits_of(model.get_submodule(QUERY.replace("q_proj", "o_proj"))) == 16
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype=torch.float32)
    ids = torch.arange(3, 60).reshape(3, 19)
    with torch.no_grad():
        ours, theirs = (
            each(input_ids=ids).logits.double().log_softmax(-1) for each in (whole, model)
        )
    lost = float((ours.exp() * (ours - theirs)).sum(-1).mean())
    assert lost == pytest.approx(report["quantized"]["kl"], rel=0.5)  # other rows

    with pytest.raises(UsageError, match="loses is measured when it is verified"):
        merge(
            str(run),
            tmp_path / "blind",
            settings={"quantize": "nf4"},
            verify=False,
            display=Quiet(),
        )
