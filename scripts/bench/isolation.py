"""How far rounding moves the logits of packed rows in bfloat16, and how far faults of a mask do.

    python scripts/bench/isolation.py

Models of several families, random and pretrained, are given a row alone and behind another one:
packed as training packs it, and with masks of our own, one right and some with a fault. The
distances are those of the self-test (`qtune.models.isolation`), over several draws of the tokens.
What it shows: rounding stays below the self-test's bound, and the smallest fault lies above it.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen3Config,
)

from qtune.models import isolation

RESULT = Path(__file__).with_name("isolation.json")
ROOT = Path(__file__).parents[2]
PRETRAINED = {
    "quickstart (pretrained)": ROOT / "recipes/quickstart/model",
    "stories260K (pretrained)": ROOT.parent / "shared/real/model",
}
SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "vocab_size": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
CONFIGS = {
    "llama": (LlamaConfig, GROUPED),
    "qwen3": (Qwen3Config, {**GROUPED, "head_dim": 32}),
    "mistral": (MistralConfig, {**GROUPED, "sliding_window": 8}),
    "phi3": (Phi3Config, GROUPED),
    "gpt-neox": (GPTNeoXConfig, SIZES),
    "gpt2": (GPT2Config, {"n_embd": 128, "n_head": 4, "vocab_size": 512}),
}
DEPTHS = (2, 8, 32)
DRAWS = 5
FRONT, _ = isolation.AROUND[0]
TOTAL = FRONT + isolation.PROBE


def built(family: str, layers: int) -> Any:
    """A random model of a family, in bfloat16."""
    torch.manual_seed(0)
    kind, keys = CONFIGS[family]
    config = kind(**keys, num_hidden_layers=layers)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def mask(fault: str) -> torch.Tensor:
    """What each token sees [1, 1, T, T]: itself and what stands in front of it in its row."""
    row_T = torch.arange(TOTAL) >= FRONT
    seen_TT = torch.ones(TOTAL, TOTAL).tril().bool() & (row_T[:, None] == row_T)
    if fault == "one token of the other row seen":
        seen_TT[FRONT:, FRONT - 1] = True
    if fault == "all of the other row seen":
        seen_TT = torch.ones(TOTAL, TOTAL).tril().bool()
    if fault == "no token sees the first of its row":
        seen_TT[FRONT + 1 :, FRONT] = False
    hidden = torch.finfo(torch.bfloat16).min
    return torch.zeros(TOTAL, TOTAL, dtype=torch.bfloat16).masked_fill(~seen_TT, hidden)[None, None]


FAULTS = (
    "one token of the other row seen",
    "all of the other row seen",
    "no token sees the first of its row",
)


@torch.no_grad()
def distances(model: Any, seed: int) -> dict[str, float]:
    """The distance from the row alone: packed, in front, and under each mask."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(vocabulary, (1, TOTAL), generator=generator)
    probe_BT, other_BT = ids_BT[:, FRONT:], ids_BT[:, :FRONT]
    positions_BT = torch.cat([torch.arange(FRONT), torch.arange(isolation.PROBE)])[None]

    def logits(ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        found: torch.Tensor = model(input_ids=ids, use_cache=False, **inputs).logits[0].float()
        return found

    alone_PV = logits(probe_BT)

    def distance(found: torch.Tensor) -> float:
        wanted = alone_PV - alone_PV.mean(-1, keepdim=True)
        return float((found - alone_PV).norm() / wanted.norm())

    front_BT = torch.cat([probe_BT, other_BT], dim=1)
    front = torch.cat([torch.arange(isolation.PROBE), torch.arange(FRONT)])[None]
    found = {
        "packed": distance(logits(ids_BT, position_ids=positions_BT)[FRONT:]),
        "control": distance(logits(front_BT, position_ids=front)[: isolation.PROBE]),
    }
    for fault in ("none", *FAULTS):
        inputs = {"position_ids": positions_BT, "attention_mask": mask(fault)}
        found[fault] = distance(logits(ids_BT, **inputs)[FRONT:])
    return found


def account(model: Any) -> dict[str, Any]:
    """The largest rounding, the bound, and the smallest distance of each fault."""
    model = model.to(torch.bfloat16).eval()
    drawn = [distances(model, seed) for seed in range(DRAWS)]
    walk = isolation.rounding(model, 0.0)
    rounded = max(max(one["packed"], one["none"]) for one in drawn)
    return {
        "layers": model.config.num_hidden_layers,
        "rounding": round(rounded, 5),
        "control": round(max(one["control"] for one in drawn), 5),
        "bound": round(
            min(isolation.rounding(model, isolation.CONTROLS * one["control"]) for one in drawn), 5
        ),
        "rounding_to_walk": round(rounded / walk, 3),
        "faults": {fault: round(min(one[fault] for one in drawn), 5) for fault in FAULTS},
    }


def main() -> None:
    """Measure every model and write what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    result = {
        f"{family}, {layers} layers": account(built(family, layers))
        for family in CONFIGS
        for layers in DEPTHS
    }
    for name, folder in PRETRAINED.items():
        if folder.is_dir():
            result[name] = account(AutoModelForCausalLM.from_pretrained(folder))
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(arguments.output.read_text(), end="")


if __name__ == "__main__":
    main()
