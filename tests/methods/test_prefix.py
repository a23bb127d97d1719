"""The prefix is what text before the row would be, to PEFT as to us, packed and cached too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from qtune.errors import UsageError
from qtune.methods import create, read, save
from qtune.models import activations
from qtune.recipe.methods import PrefixConfig
from tests.methods.bases import attached, batch, randomise
from tests.tiny import tiny_llama, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.methods.base import Method
    from qtune.recipe.steps import ActivationPolicy

COUNT = 4
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
FAMILIES = ("llama", "qwen3", "mistral", "gpt_neox", "gpt2", "phi")


def family(name: str, **settings: Any) -> Any:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4 if name == "gpt_neox" else 2,
        "vocab_size": 320,
        "max_position_embeddings": 64,
        "pad_token_id": 2,
    }
    if name == "qwen3":
        sizes["head_dim"] = 8
    if name == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 320, "n_positions": 64}
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **sizes | settings)
    return AutoModelForCausalLM.from_config(config).requires_grad_(False).eval()


def prefixed(model: Any, *, text: str | None = None) -> Method:
    method_config = PrefixConfig(num_virtual_tokens=COUNT, init_text=text)
    method = create(method_config, seed=0)
    method.attach(model, tokenizer=tiny_tokenizer())
    return method


@torch.no_grad()
def logits(model: Any, ids: list[int] | Tensor, **given: Any) -> Tensor:
    found: Tensor = model(input_ids=torch.as_tensor(ids)[None], **given).logits[0]
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_it_starts_as_text_before_the_row(name: str) -> None:
    model = family(name)
    text = "abcd"
    before = tiny_tokenizer()(text, add_special_tokens=False)["input_ids"][:COUNT]
    before = (before * COUNT)[:COUNT]
    row = list(range(5, 17))
    wanted = logits(model, [*before, *row])[COUNT:]
    method = prefixed(model, text=text)
    assert torch.allclose(logits(model, row), wanted, atol=1e-5)
    with method.disabled():
        assert (logits(model, row) - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_rows_of_a_batch_and_of_a_pack_are_as_alone(name: str) -> None:
    model = family(name)
    randomise(prefixed(model))
    rows = [list(range(5, 17)), list(range(40, 45)), list(range(60, 69))]
    alone = [logits(model, row) for row in rows]
    longest = max(map(len, rows))
    right = torch.tensor([row + [2] * (longest - len(row)) for row in rows])
    left = torch.tensor([[2] * (longest - len(row)) + row for row in rows])
    with torch.no_grad():
        padded = model(input_ids=right, attention_mask=(right != 2).long()).logits
        turned = model(input_ids=left, attention_mask=(left != 2).long()).logits
    packed = logits(
        model,
        [token for row in rows for token in row],
        position_ids=torch.tensor([[at for row in rows for at in range(len(row))]]),
        use_cache=False,
    )
    at = 0
    for number, row in enumerate(rows):
        wanted = alone[number]
        assert torch.allclose(padded[number, : len(row)], wanted, atol=1e-5)
        assert torch.allclose(turned[number, -len(row) :], wanted, atol=1e-5)
        assert torch.allclose(packed[at : at + len(row)], wanted, atol=1e-5)
        at += len(row)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_generation_with_a_cache_is_that_without(name: str) -> None:
    model = family(name)
    randomise(prefixed(model))
    ids = [7, 8, 9]
    model.generation_config.pad_token_id = 2
    out = model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, eos_token_id=None)
    for _ in range(6):
        ids.append(int(logits(model, ids)[-1].argmax()))
    assert out[0].tolist() == ids


def test_a_sliding_window_does_not_hide_it() -> None:
    model = family("mistral", sliding_window=4)
    method = prefixed(model)
    row = list(range(5, 25))
    before = logits(model, row)
    randomise(method)
    assert (logits(model, row)[-1] - before[-1]).abs().max() > 1e-4


@pytest.mark.parametrize("policy", ["selective", "layer", "offload"])
def test_recomputation_gives_the_same_gradients(policy: ActivationPolicy) -> None:
    found = []
    for each in ("none", policy):
        model = tiny_llama().requires_grad_(False).train()
        activations.use(model, each)  # type: ignore[arg-type]
        method = attached(model, PrefixConfig(num_virtual_tokens=COUNT))
        model(**batch()).loss.backward()
        found.append([parameter.grad for parameter in method.parameters().values()])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
        assert one.norm() > 0


def test_pefts_file_is_ours_and_ours_is_pefts(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = family("llama")
    settings = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=COUNT, prefix_projection=False
    )
    theirs = peft.get_peft_model(model, settings).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    row = list(range(5, 17))
    mask = torch.ones(1, len(row), dtype=torch.long)
    wanted = logits(theirs, row, attention_mask=mask)

    plain = family("llama")
    method = read(tmp_path / "theirs").attach(plain, base_fingerprint=None)
    assert torch.allclose(logits(plain, row), wanted, atol=1e-5)

    randomise(method)
    wanted = logits(plain, row)
    save(tmp_path / "ours", method, base_model="tiny", base_fingerprint="0")
    again = peft.PeftModel.from_pretrained(family("llama"), tmp_path / "ours").eval()
    assert torch.allclose(logits(again, row, attention_mask=mask), wanted, atol=1e-5)


def test_other_attention_is_refused() -> None:
    model = tiny_llama().requires_grad_(False)
    model.set_attn_implementation("eager")
    with pytest.raises(UsageError, match="works with sdpa, not eager"):
        attached(model, PrefixConfig())
