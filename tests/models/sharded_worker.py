"""What each process of `test_sharded.py` does: loads whole and in shards, computes, and tells."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qtune import methods, models
from qtune.errors import QtuneError
from qtune.evaluation.decode import decode
from qtune.losses.head import hidden_states, output_layer
from qtune.models import Spread
from qtune.models.own_product import OwnProduct
from qtune.ops.nf4 import bits_of, int8_parts, packed_of
from qtune.ops.spread import is_spread
from qtune.ranks import Ranks, joined, seat
from qtune.recipe.inputs import ModelSection, QuantizationSection
from qtune.recipe.methods import BottleneckConfig, LoraConfig, PrefixConfig
from tests.models.workshop import CPU, IDS

LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.1)
DORA = LoraConfig(rank=4, alpha=8.0, dropout=0.0, use_dora=True)
PREFIX = PrefixConfig(num_virtual_tokens=3)
BOTTLENECK = BottleneckConfig(placement="houlsby", width=4)
PROMPTS = [[5, 6, 7], [9, 10]]


def load(folder: str, spread: Spread = Spread(), policy: Any = "none", **quantization: Any) -> Any:  # noqa: B008
    section = QuantizationSection(**{"compute_dtype": "float32", **quantization})
    model = ModelSection(name_or_path=folder)
    return models.load(model, section, device=CPU, activations=policy, spread=spread)


def learnt(base: Any, config: Any, *, kernels: Any, policy: Any) -> dict[str, Any]:
    """Gradients of two passes, and logits and a continuation with a cache."""
    method = methods.create(config, seed=0)
    method.attach(base.model)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in method.parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    models.fuse(base.model, kernels, policy)
    base.model.train()
    passes = [gradients(base.model, method) for _ in range(2)]
    base.model.eval()
    with torch.no_grad():
        logits = base.model(input_ids=IDS, use_cache=False).logits
    texts = decode(base.model, PROMPTS, max_new_tokens=4, stop_ids=frozenset())
    return {"gradients": passes, "logits": logits, "texts": [each.ids for each in texts]}


def gradients(model: Any, method: Any) -> list[Tensor]:
    torch.manual_seed(1)
    scores = output_layer(model)(hidden_states(model, input_ids=IDS))
    scores.float().logsumexp(-1).sum().backward()
    found = [parameter.grad.clone() for parameter in method.parameters().values()]
    for parameter in method.parameters().values():
        parameter.grad = None
    return found


def apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    pairs = [
        (x, y)
        for mine, theirs in zip(one["gradients"], other["gradients"], strict=True)
        for x, y in zip(mine, theirs, strict=True)
    ]
    return {
        "gradients": max(float((x - y).abs().max()) for x, y in pairs),
        "largest": max(float(x.abs().max()) for x, _ in pairs),
        "logits": float((one["logits"] - other["logits"]).abs().max()),
        "texts": one["texts"] == other["texts"],
    }


def content(model: Any) -> str:
    """A digest of every tensor's name, dtype, shape and bytes, with the constants of codes."""
    digest = hashlib.sha256()
    for name, module in sorted(model.named_modules()):
        own = {
            **dict(module.named_parameters(recurse=False)),
            **dict(module.named_buffers("", False)),
        }
        if bits_of(module) == 4:
            codes, state = packed_of(module)
            own["weight"] = codes.view(torch.uint8)
            own |= state.as_dict(packed=True)
        elif bits_of(module) == 8:
            own["weight"], own["SCB"] = int8_parts(module)
        for key, tensor in sorted(own.items()):
            flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(flat.numpy().tobytes())
    return digest.hexdigest()


class Opened:
    """Counts the weight files that this process opens while it is on."""

    def __init__(self) -> None:
        self.count = 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".safetensors"):
            self.count += 1


def computed(tiny: str, odd: str, ranks: Ranks) -> dict[str, Any]:
    """How far shards are from the whole (which keeps all activations) in what they compute."""
    found: dict[str, Any] = {}
    wholes: dict[Any, dict[str, Any]] = {}
    cases: list[tuple[str, str, Any, Any, bool]] = [
        (tiny, kernels, policy, LORA, policy == "layer")
        for kernels in ("plain", "fused")
        for policy in ("none", "selective", "layer", "offload")
    ]
    cases += [(tiny, "fused", "none", DORA, False), (odd, "plain", "layer", LORA, False)]
    cases += [(tiny, "fused", "layer", config, False) for config in (PREFIX, BOTTLENECK)]
    for folder, kernels, policy, config, offload in cases:
        spread = Spread(ranks, "fsdp", offload)
        name = "dora" if config is DORA else config.name
        same = folder, kernels, name
        if same not in wholes:
            wholes[same] = learnt(load(folder), config, kernels=kernels, policy="none")
        base = load(folder, spread, policy)
        here = learnt(base, config, kernels=kernels, policy=policy)
        key = f"{Path(folder).name}-{kernels}-{policy}-{name}"
        found[key] = apart(wholes[same], here) | state(base)
    return found


def state(base: Any) -> dict[str, Any]:
    """What this process holds of the layers."""
    linears = [each for each in base.model.modules() if isinstance(each, OwnProduct)]
    stored = [each.weight.to_local() for each in linears if is_spread(each.weight)]
    return {
        "linears": len(linears),
        "shards": len(stored),
        "held": sum(each.nbytes for each in stored),
        "told": base.sharded.shard_bytes,
        "whole": sum(base.sharded.layer_bytes),
        "four_bit": base.inventory.row("4-bit").bytes,
        "nans": sum(int(each.isnan().sum()) for each in stored),
    }


def sent(folders: dict[str, str], ranks: Ranks) -> dict[str, Any]:
    """The digests of what came over from the first, and how many weight files were opened."""
    found, opened = {}, Opened()
    for name, bits in (("tiny", 4), ("tiny", 8), ("tiny", 16), ("packed", 4), ("tied", 4)):
        base = load(folders[name], Spread(ranks, "ddp"), bits=bits)
        found[f"{name}-{bits}"] = [content(base.model), base.inventory.bytes, base.fingerprint]
    base = load(folders["packed"], Spread(ranks, "fsdp"))
    found["packed-fsdp"] = [content(base.model)]
    return {"found": found, "opened": opened.count}


def refused(call: Any) -> list[str]:
    """The kind, code and words of the error that a call ends with."""
    try:
        call()
    except QtuneError as error:
        return [type(error).__name__, str(int(error.code)), str(error)]
    return []


def all_of_it(folders: dict[str, str], told: dict[str, Any]) -> None:
    """Everything in one start; the last folder is broken, which ends all processes."""
    with joined(seat()) as ranks:
        told["computed"] = computed(folders["tiny"], folders["odd"], ranks)
        told["sent"] = sent(folders, ranks)
        told["bits"] = refused(lambda: load(folders["tiny"], Spread(ranks, "fsdp"), bits=8))
        load(folders["broken"], Spread(ranks, "fsdp"))


def main() -> None:
    """The folders by name as JSON, and where to leave what was found."""
    folders, target = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    told: dict[str, Any] = {}
    told["broken"] = refused(lambda: all_of_it(folders, told))
    target.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
