"""The definition of rotary positions is that of every family that qtune fuses."""

from __future__ import annotations

import importlib

import pytest
import torch

from qtune.ops import rotary

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2")


# only Phi-3 leaves columns as they are
@pytest.mark.parametrize(("family", "width"), [*((name, 16) for name in FAMILIES), ("phi3", 12)])
def test_plain_is_what_the_family_does(family: str, width: int) -> None:
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 7, 16), torch.randn(2, 2, 7, 16)
    cos, sin = torch.randn(2, 7, width), torch.randn(2, 7, width)
    wanted = module.apply_rotary_pos_emb(query, key, cos, sin)
    for form in (rotary.plain, rotary.fused):
        for found, other in zip(form(query, key, cos, sin), wanted, strict=True):
            assert torch.equal(found, other)


def test_a_pair_is_turned_by_its_angle() -> None:
    states = torch.tensor([3.0, 7.0, 4.0, 11.0]).view(1, 1, 1, 4)
    angle = torch.tensor([0.5, 2.0, 0.5, 2.0]).double().view(1, 1, 4)
    turned, _ = rotary.plain(states.double(), states.double(), angle.cos(), angle.sin())
    pairs = torch.view_as_complex(torch.stack([turned[..., :2], turned[..., 2:]], dim=-1))
    wanted = torch.tensor([3 + 4j, 7 + 11j], dtype=torch.complex128)
    wanted = wanted * torch.exp(1j * angle[..., :2])
    torch.testing.assert_close(pairs.view(-1), wanted.view(-1))
