"""P-tuning: PEFT computes the same of the same network, reads our file, and we read its."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from qtune import methods, optim
from qtune.recipe.methods import PTuningConfig
from tests.methods.bases import attached, batch, logits, randomise
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
COUNT = 5


def base() -> Any:
    return tiny_llama().requires_grad_(False)


def config(encoder: str) -> PTuningConfig:
    return PTuningConfig(num_virtual_tokens=COUNT, encoder=encoder, encoder_width=16)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
def test_the_network_is_pefts(encoder: str) -> None:
    from peft import PromptEncoder, PromptEncoderConfig

    method = attached(base(), config(encoder))
    facts = method.peft_config()
    theirs = PromptEncoder(
        PromptEncoderConfig(
            num_virtual_tokens=COUNT,
            token_dim=facts["token_dim"],
            num_transformer_submodules=1,
            encoder_reparameterization_type=facts["encoder_reparameterization_type"],
            encoder_hidden_size=facts["encoder_hidden_size"],
            encoder_num_layers=facts["encoder_num_layers"],
        )
    )
    names = {"inputs": "embedding.weight", "head": "mlp_head", "lstm": "lstm_head"}
    state = {
        names[name.partition(".")[0]] + (f".{rest}" if (rest := name.partition(".")[2]) else ""): t
        for name, t in method.state().items()
    }
    theirs.load_state_dict(state)
    found = theirs(torch.arange(COUNT)[None])[0]
    assert torch.allclose(method.adapter_state()["prompt_embeddings"], found, atol=1e-6)


@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
def test_files_go_both_ways(encoder: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = base()
    method = attached(model, config(encoder))
    randomise(method)
    methods.save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0123")
    theirs = PeftModel.from_pretrained(base(), tmp_path / "a").eval()
    data = batch()
    with torch.no_grad():
        found = theirs(input_ids=data["input_ids"], attention_mask=data["attention_mask"]).logits
    found = found[:, -data["input_ids"].shape[1] :][data["attention_mask"] == 1]
    assert torch.allclose(found, logits(model), atol=1e-5)
    theirs.save_pretrained(tmp_path / "b")
    assert list(load_file(tmp_path / "b" / "adapter_model.safetensors")) == ["prompt_embeddings"]
    again = base()
    methods.read(tmp_path / "b").attach(again, base_fingerprint=None)
    assert torch.equal(logits(again), logits(model))


def test_the_file_holds_what_the_network_makes(tmp_path: Path) -> None:
    method = attached(base(), config("mlp"))
    methods.save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0123")
    (tensor,) = load_file(tmp_path / "a" / "adapter_model.safetensors").values()
    assert tensor.shape == (COUNT, 64)


def test_given_embeddings_learn_on() -> None:
    model = base()
    method = attached(model, config("mlp"))
    given = torch.randn(COUNT, 64, generator=torch.Generator().manual_seed(1))
    method.load_adapter({"prompt_embeddings": given})
    assert torch.equal(method.adapter_state()["prompt_embeddings"], given)
    randomise(method)
    assert not torch.allclose(method.adapter_state()["prompt_embeddings"], given, atol=1e-3)


def test_a_resumed_run_goes_on_exactly() -> None:
    def steps(model: Any, optimizer: Any) -> None:
        for _ in range(2):
            model(**batch()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    def make(seed: int) -> tuple[Any, Any, Any]:
        model = base()
        method = attached(model, config("lstm"), seed=seed)
        groups = method.param_groups(learning_rate=1e-2, weight_decay=0.0)
        return model, method, torch.optim.AdamW(groups)

    whole, method, optimizer = make(0)
    steps(whole, optimizer)
    kept, state = method.adapter_state(), method.state()
    tensors, numbers = optim.state_of(optimizer, method.parameters())
    steps(whole, optimizer)
    model, method, optimizer = make(7)
    method.load_adapter(kept)
    method.load_state(state)
    optim.load_state(optimizer, method.parameters(), tensors, numbers)
    steps(model, optimizer)
    assert torch.equal(logits(model), logits(whole))
