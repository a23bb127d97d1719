"""Exchange the class of known blocks, instance by instance, for one that computes fused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtune.errors import UsageError
from qtune.models.fused_blocks import (
    ATTENTION,
    MIXINS,
    MLP,
    FusedAttention,
    FusedMlp,
    FusedNorm,
    activation_of,
    children,
    is_frozen,
    plain_class,
)
from qtune.ops.projection import why_not

if TYPE_CHECKING:
    from torch import nn

    from qtune.recipe.steps import ActivationPolicy, Kernels


@dataclass
class Fused:
    """What was exchanged, and why what was left was left."""

    blocks: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    """Blocks by "name plain (reason)"."""
    why: str = ""
    """Why no block was even looked at."""

    def line(self) -> str:
        """One line for the log."""
        counts = (self.blocks, self.left)
        done, rest = (", ".join(f"{n} {name}" for name, n in found.items()) for found in counts)
        if not done:
            return f"kernels: plain ({self.why})" if self.why else f"kernels: plain; {rest}"
        return f"fused: {done}; {rest}" if rest else f"fused: {done}"


def fuse(model: Any, kernels: Kernels, policy: ActivationPolicy) -> Fused:
    """Fuse the blocks of a model with its adapters attached; `UsageError` if that was asked for and
    none can be."""
    found = Fused()
    if kernels == "plain":
        found.why = "memory.kernels"
        return found
    layers = decoder_layers(model)
    if not layers:
        found.why = f"{type(model).__name__} is no family whose blocks qtune fuses"
    plain = [layer for layer in layers if not _fuse_layer(layer, policy, found)]
    _fuse_norms(model, plain, found)
    if kernels in ("fused", "triton") and not found.blocks:
        raise UsageError(
            found.why or "; ".join(found.left),
            place="memory.kernels",
            hint="set it to auto or plain",
        )
    return found


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that hold an attention or an MLP of a known class."""
    return [module for module in model.modules() if _blocks(module)]


def _blocks(layer: nn.Module) -> list[nn.Module]:
    wanted = (FusedAttention, FusedMlp)
    return [child for child in layer.children() if MIXINS.get(type(child).__name__) in wanted]


def unfuse(model: nn.Module) -> None:
    """Give every fused block its own class back."""
    for module in model.modules():
        if type(module) in _made.values():
            module.__class__ = plain_class(module)


def _fuse_layer(layer: Any, policy: ActivationPolicy, found: Fused) -> bool:
    """Fuse the blocks of one layer, and say whether anything in it may be.

    Under `selective` all are or none: a fused layer chooses by itself what it keeps, and the
    operators that others choose by are hidden in its nodes.
    """
    blocks = _blocks(layer)
    reasons = [_reason(block) for block in blocks]
    first = next((reason for reason in reasons if reason), None)
    if policy == "selective" and first:
        reasons = [first] * len(blocks)
    for block, reason in zip(blocks, reasons, strict=True):
        if reason:
            found.left[f"{type(block).__name__} plain ({reason})"] += 1
            continue
        _exchange(block, found)
        if isinstance(block, FusedMlp):
            block.recompute_inside = policy == "selective"
    if policy == "selective":
        layer.gradient_checkpointing = first is not None
    return policy != "selective" or first is None


def _fuse_norms(model: nn.Module, plain: list[nn.Module], found: Fused) -> None:
    """Fuse the norms of a known class that are frozen, outside of the layers to leave alone."""
    left = {id(module) for layer in plain for module in layer.modules()}
    for module in model.modules():
        known = MIXINS.get(type(module).__name__) is FusedNorm
        if known and id(module) not in left and is_frozen(module):
            _exchange(module, found)


def _exchange(block: nn.Module, found: Fused) -> None:
    found.blocks[type(block).__name__] += 1
    block.__class__ = fused_class(type(block))


def _reason(block: Any) -> str | None:
    """Why a block of a known class cannot be fused."""
    is_mlp = MIXINS[type(block).__name__] is FusedMlp
    if is_mlp and not activation_of(block):
        return "an activation that qtune has not fused"
    return why_not(children(block, MLP if is_mlp else ATTENTION))


def fused_class(plain: type) -> type:
    """A class with a mixin's forward in front of everything of a block's own class."""
    if plain not in _made:
        _made[plain] = type(f"Fused{plain.__name__}", (MIXINS[plain.__name__], plain), {})
    return _made[plain]


_made: dict[type, type] = {}
