"""Write a smaller model: MLP channels, groups of attention heads and whole layers taken out.

What counts least on calibration rows goes, by the whole model's own activations: a channel or a
group by what it adds to the residual stream, |X_j| |W_j| (Wanda's measure summed over the outputs,
Sun et al. 2023), a layer by the cosine between what comes in and what goes out (Men et al. 2024).
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from qtune import durable
from qtune.errors import ModelError, UsageError
from qtune.models import pruning, writing
from qtune.models.model_folder import SHARD_BYTES, copy_companions, new_model
from qtune.models.pruning import REPORT, Pruning
from qtune.models.shards import DTYPES
from qtune.models.skeleton import model_config
from qtune.models.writing import TensorSpec
from qtune.ops.pruning import Share
from qtune.plan import read_config
from qtune.plan.families import DECODERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from qtune.models.calibrating import Seen
    from qtune.recipe.inputs import ModelSection

FAMILIES = tuple(name for name, traits in DECODERS.items() if not traits.fused)
STEPS = (64, 32, 1)
"""Channels that stay are a multiple of these: a block of NF4, or what its kernel on CPUs needs."""
QUERY, KEYS, OUT = ("q_proj",), ("k_proj", "v_proj"), "o_proj"
UP, DOWN = ("gate_proj", "up_proj"), "down_proj"


@dataclass(frozen=True)
class Cut:
    """What is taken out: shares of the channels and of the heads of each layer, and layers."""

    channels: float = 0.0
    heads: float = 0.0
    layers: int = 0


@dataclass(frozen=True)
class Sizes:
    """What a config says."""

    channels: int
    heads: int
    groups: int
    """Key-value heads; each serves as many query heads."""
    head_size: int
    layers: int

    def after(self, cut: Cut, allowed: Callable[[int], bool]) -> Sizes:
        """The sizes that stay; `UsageError` where nothing would go, or all. `allowed`: whether
        there may be so many heads."""
        channels = self.channels
        if cut.channels:
            step = next(step for step in STEPS if self.channels % step == 0)
            channels = round(self.channels * (1 - cut.channels) / step) * step
            _check("--drop-channels", channels, self.channels, f"a multiple of {step}")
        groups = self.groups
        if cut.heads:
            each = self.heads // self.groups
            known = [count for count in range(1, self.groups + 1) if allowed(count * each)]
            groups = min(known, key=lambda count: abs(self.groups * (1 - cut.heads) - count))
            what = f"{', '.join(map(str, known))} with {each} heads each, as transformers takes it"
            _check("--drop-heads", groups, self.groups, what)
        layers = self.layers - cut.layers
        if cut.layers:
            _check("--drop-layers", layers, self.layers, "one at least")
        heads = self.heads // self.groups * groups
        return Sizes(channels, heads, groups, self.head_size, layers)


def _check(option: str, after: int, before: int, what: str) -> None:
    if not 0 < after < before:
        word = "nothing" if after >= before else "everything"
        raise UsageError(
            f"takes out {word}: {before:,} are there, and there may be {what}", place=option
        )


@dataclass
class Scores:
    """How much each part of a layer counts."""

    channels: Tensor
    groups: Tensor
    cosine: float


@dataclass
class Shrinking:
    """A model that is to become smaller, checked as far as it can be without reading a weight."""

    work: Pruning
    before: Sizes
    after: Sizes
    scores: list[Scores] = field(default_factory=list, init=False)

    def look(self, rows: Sequence[Sequence[int]], on_progress: Callable[[int, int], None]) -> None:
        """Score every part of every layer on calibration rows."""
        self.work.start(rows)
        for number in range(self.before.layers):
            on_progress(number, self.before.layers)
            with self.work.in_memory(number):
                linears = self.work.linears_of(number)
                chosen = {n: m for n, m in linears.items() if n.endswith((OUT, DOWN))}
                seen = self.work.walk.look(number, chosen, gram=False)
                found = {_leaf(name): _columns(linears[name], seen[name]) for name in chosen}
                cosine = self.work.walk.advance(number)
            groups = found[OUT].reshape(self.before.groups, -1).sum(1)
            self.scores.append(Scores(found[DOWN], groups, cosine))

    @property
    def kept_layers(self) -> list[int]:
        """The layers that stay: those that turn their input the furthest."""
        order = sorted(range(self.before.layers), key=lambda n: (self.scores[n].cosine, n))
        return sorted(order[: self.after.layers])

    @property
    def specs(self) -> dict[TensorSpec, str]:
        """Every tensor of the smaller model -> its name in the checkpoint."""
        numbers = {layer: place for place, layer in enumerate(self.kept_layers)}
        table, work = self.work.checkpoint.table, self.work
        found = {}
        for stored in sorted(work.checkpoint.index, key=lambda n: (work.layer_of(n), n)):
            layer = work.layer_of(stored)
            if layer >= 0 and layer not in numbers:
                continue
            name = stored
            if layer >= 0:
                name = re.sub(rf"(^|\.){layer}\.", rf"\g<1>{numbers[layer]}.", stored, count=1)
            shape = list(table[stored]["shape"])
            cut = self._cut(stored)
            if cut is not None:
                shape[cut[0]] = len(cut[1])
            found[TensorSpec(name, tuple(shape), DTYPES[table[stored]["dtype"]])] = stored
        return found

    def tensor(self, stored: str) -> Tensor:
        """What stays of a tensor of the checkpoint."""
        whole = self.work.checkpoint.read(stored)
        cut = self._cut(stored)
        return whole if cut is None else whole.index_select(*cut).contiguous()

    def _cut(self, stored: str) -> tuple[int, Tensor] | None:
        """Which dimension of a tensor is cut, and what stays of it."""
        layer = self.work.layer_of(stored)
        if layer < 0:
            return None
        name, _, kind = self.work.pairs.names[stored].rpartition(".")
        leaf = _leaf(name)
        if leaf in (OUT, DOWN) and kind == "bias":
            return None
        scores, after, size = self.scores[layer], self.after, self.before.head_size
        if leaf in (*UP, DOWN):
            return int(leaf == DOWN), _best(scores.channels, after.channels)
        groups = _best(scores.groups, after.groups)
        if leaf in (*QUERY, OUT):
            return int(leaf == OUT), _spread(groups, size * self.before.heads // self.before.groups)
        return (0, _spread(groups, size)) if leaf in KEYS else None

    def config(self) -> dict[str, Any]:
        """config.json with the new sizes."""
        content = dict(read_config(self.work.folder))
        content |= {
            "intermediate_size": self.after.channels,
            "num_attention_heads": self.after.heads,
            "num_key_value_heads": self.after.groups,
            "head_dim": self.after.head_size,
            "num_hidden_layers": self.after.layers,
        }
        kinds = getattr(model_config(self.work.folder), "layer_types", None)
        if kinds is not None:
            content["layer_types"] = [kinds[layer] for layer in self.kept_layers]
        return content


def prepare(model: ModelSection, cut: Cut, *, device: torch.device) -> Shrinking:
    """Read the headers of a model; `ModelError` or `UsageError` where it cannot be made smaller."""
    work = pruning.prepare(model, "magnitude", Share(0.5), device=device)
    config = work.network.config
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"qtune does not know which weights of {config.model_type} belong together",
            place=str(work.folder),
            hint=f"it makes these smaller: {', '.join(FAMILIES)}; the other ways zero any model",
        )
    heads = int(config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    before = Sizes(
        int(config.intermediate_size),
        heads,
        int(config.num_key_value_heads),
        size,
        int(config.num_hidden_layers),
    )
    return Shrinking(work, before, before.after(cut, lambda heads: _takes(config, heads)))


def _takes(config: Any, heads: int) -> bool:
    """Whether transformers' config class takes so many heads beside its other sizes."""
    try:
        type(config)(**{**config.to_dict(), "num_attention_heads": heads})
    except Exception:  # each class refuses in its own way
        return False
    return True


def write(
    work: Shrinking,
    target: Path,
    report: Callable[[], tuple[dict[str, Any], str]],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the smaller model to the new folder `target`, whole or not at all."""
    specs = work.specs
    size = sum(spec.bytes for spec in specs)
    with new_model(target, size, "the smaller model") as draft:
        files = writing.split(list(specs), max_bytes=SHARD_BYTES)
        writing.write(draft, files, lambda spec: work.tensor(specs[spec]), on_progress=on_progress)
        copy_companions(work.work.folder, draft, without={REPORT})
        with suppress(FileNotFoundError):
            durable.unlink(draft / "config.json")
        durable.write_json(draft / "config.json", work.config())
        pruning.write_report(draft, report)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _columns(linear: Any, seen: Seen) -> Tensor:
    """Squared |X_j| |W_j| of each input of a linear."""
    assert seen.squares is not None
    weight: Tensor = linear.weight.detach().float()
    return (seen.squares * weight.square().sum(0)).cpu()


def _best(scores: Tensor, count: int) -> Tensor:
    """Places of the highest scores in their order."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def _spread(groups: Tensor, size: int) -> Tensor:
    """The places of whole groups of a size."""
    return (groups[:, None] * size + torch.arange(size)).flatten()
