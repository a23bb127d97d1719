"""Two processes over gloo: a base in shards computes what the whole one does, and what one process
reads, the others hold bit for bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from qtune.errors import UsageError
from qtune.models import load as load_base
from qtune.models.sharding import Spread
from qtune.ops.nf4 import from_storage, library, quantize, to_storage
from qtune.recipe.inputs import ModelSection, QuantizationSection
from tests.models.sharded_worker import content, load
from tests.models.test_prequantized import save_packed
from tests.models.workshop import CPU, edit_tensors
from tests.tiny import save_tiny, tiny_llama
from tests.together import together

ODD = {"hidden_size": 6, "intermediate_size": 9, "num_attention_heads": 1, "head_dim": 2}
POLICIES = ("none", "selective", "layer", "offload")
CASES = [
    *(f"tiny-{kernels}-{policy}-lora" for kernels in ("plain", "fused") for policy in POLICIES),
    "tiny-fused-none-dora",
    "odd-plain-layer-lora",
    "tiny-fused-layer-prefix",
    "tiny-fused-layer-bottleneck",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Bases in several files, quantised, tied, and with weights of odd sizes."""
    place = tmp_path_factory.mktemp("bases")
    odd = tiny_llama(num_key_value_heads=1, attention_bias=True, mlp_bias=True, **ODD)
    made = {
        "tiny": save_tiny(place / "tiny", max_shard_size="100KB"),
        "odd": save_tiny(place / "odd", odd),
        "tied": save_tiny(place / "tied", tiny_llama(tie_word_embeddings=True)),
        "packed": save_packed(place),
        "broken": edit_tensors(save_tiny(place / "broken"), _spoil),
    }
    return {name: str(folder) for name, folder in made.items()}


def _spoil(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")


@pytest.fixture(scope="module")
def told(folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found; all of it in one start."""
    folder = tmp_path_factory.mktemp("told")
    return together("tests.models.sharded_worker", json.dumps(folders), folder=folder)


@pytest.mark.parametrize("case", CASES)
def test_shards_compute_what_the_whole_does(case: str, told: list[dict[str, Any]]) -> None:
    for rank in told:
        found = rank["computed"][case]
        assert found["largest"] > 1e-3
        assert found["gradients"] <= 1e-6
        assert found["logits"] <= 1e-6
        assert found["texts"]


@pytest.mark.parametrize("case", CASES)
def test_after_a_pass_each_holds_its_half_again(case: str, told: list[dict[str, Any]]) -> None:
    both = [rank["computed"][case] for rank in told]
    for found in both:
        assert found["linears"] == found["shards"] == 14
        assert found["held"] == found["told"]
        assert abs(found["held"] - found["whole"] / 2) <= 2 * found["linears"]
    assert sum(found["held"] for found in both) == both[0]["whole"]
    constants = both[0]["four_bit"] - both[0]["told"]
    assert constants == both[1]["four_bit"] - both[1]["told"] > 0


def test_codes_that_are_no_numbers_as_floats_survive(told: list[dict[str, Any]]) -> None:
    """Or the equal gradients would say nothing of them."""
    assert sum(rank["computed"]["tiny-plain-none-lora"]["nans"] for rank in told) > 0


@pytest.mark.parametrize(
    ("case", "bits"),
    [("tiny", 4), ("tiny", 8), ("tiny", 16), ("packed", 4), ("tied", 4)],
)
def test_what_is_sent_is_what_one_alone_loads(
    case: str, bits: int, folders: dict[str, str], told: list[dict[str, Any]]
) -> None:
    alone = load(folders[case], bits=bits)
    wanted = [content(alone.model), alone.inventory.bytes, alone.fingerprint]
    for rank in told:
        assert rank["sent"]["found"][f"{case}-{bits}"] == wanted


def test_shards_of_a_quantised_base_are_its_bytes(
    folders: dict[str, str], told: list[dict[str, Any]]
) -> None:
    wanted = content(load(folders["packed"]).model)
    assert [rank["sent"]["found"]["packed-fsdp"] for rank in told] == [[wanted]] * 2


def test_one_process_alone_reads(told: list[dict[str, Any]]) -> None:
    assert told[0]["sent"]["opened"] > 0
    assert told[1]["sent"]["opened"] == 0


def test_only_4_bits_are_sharded(told: list[dict[str, Any]]) -> None:
    for rank in told:
        kind, code, message = rank["bits"]
        assert (kind, code) == ("UsageError", "2")
        assert "distributed.strategy" in message


def test_a_fault_of_the_one_that_reads_ends_all(told: list[dict[str, Any]]) -> None:
    kind, code, message = told[0]["broken"]
    assert (kind, code) == ("ModelError", "4")
    assert "model.layers.1.mlp.up_proj.weight holds nan" in message
    assert told[1]["broken"][0] in ("PeerFault", "PeerLost")  # the first may be gone already


def test_a_streamed_base_is_not_sharded(folders: dict[str, str]) -> None:
    """Told before a process is asked for anything."""
    model = ModelSection(name_or_path=folders["packed"])
    with pytest.raises(UsageError, match="streamed"):
        load_base(
            model,
            QuantizationSection(),
            device=CPU,
            activations="none",
            base="stream",
            spread=Spread(strategy="fsdp"),
        )


@pytest.mark.parametrize("shape", [(9, 6), (3, 6), (64, 64), (1, 1)])
def test_stored_as_floats_and_back(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    packed, state = quantize(weight, quant_type="nf4", double_quant=False)
    stored = to_storage(packed)
    assert stored.dtype == torch.bfloat16
    assert torch.equal(from_storage(stored, state), packed)
    assert library().functional.dequantize_4bit(from_storage(stored, state), state).shape == shape
