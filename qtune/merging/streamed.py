"""A model larger than memory, computed in fp32 with weights that are read when they are used.

Its linears multiply with blocks of rows, its embeddings gather the rows of the ids at hand, and
any other module holds its parameters while it computes, no longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qtune.methods.adapter import Adapter
from qtune.models.preparation import compute_buffers
from qtune.ops.linears import class_heads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from qtune.merging.bases import Rows

    Find = Callable[[str], Rows]

META = "meta"


class RowsLinear(nn.Module):
    """x W^T + b, with W [out, in] read in blocks of rows."""

    def __init__(self, old: nn.Linear, names: Mapping[str, str], rows: Find) -> None:
        super().__init__()
        self._names, self._find = names, rows
        self.out_features, self.in_features = old.out_features, old.in_features

    @property
    def weight(self) -> Tensor:
        """[out, in], read anew each time."""
        return self._find(self._names["weight"]).whole().float()

    @property
    def bias(self) -> Tensor | None:
        """[out], if there is one."""
        name = self._names.get("bias")
        return None if name is None else self._find(name).whole().float()

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        output = x.new_empty(*x.shape[:-1], self.out_features)
        bias, rows = self.bias, self._find(self._names["weight"])
        for start, stop in rows.spans():
            piece = None if bias is None else bias[start:stop]
            weight = rows.read(start, stop).float()
            output[..., start:stop] = functional.linear(x, weight, piece)
        return output


class RowsEmbedding(nn.Module):
    """The rows of W [ids, width] that are asked for, times `scale` where a family has one."""

    def __init__(self, old: nn.Embedding, name: str, rows: Find) -> None:
        super().__init__()
        self._name, self._find = name, rows
        self.num_embeddings, self.embedding_dim = old.num_embeddings, old.embedding_dim
        self.padding_idx = old.padding_idx
        self._scale = getattr(old, "embed_scale", None)

    @property
    def weight(self) -> Tensor:
        """[ids, width], read anew each time."""
        return self._find(self._name).whole().float()

    def forward(self, ids: Tensor) -> Tensor:
        """[...] -> [..., width]."""
        known, places = ids.unique(return_inverse=True)
        rows = self._find(self._name)
        found = torch.cat([_row(rows, int(one)) for one in known])[places]
        return found if self._scale is None else found * float(self._scale)


def names_of(network: nn.Module) -> dict[int, str]:
    """The full name of each parameter of a network by its identity, to be known after adapters
    were put around its modules; of a tied one the first."""
    return {id(p): name for name, p in reversed(list(_named(network)))}


def stream(network: Any, names: Mapping[int, str], rows: Find) -> None:
    """Have a network on the meta device compute in fp32 with the rows of its parameters.

    `names` is what `names_of` said before adapters came, which must be real tensors by now.
    """
    compute_buffers(network, torch.device("cpu"))
    network.eval()
    heads = tuple(f"{name}." for name in class_heads(network))
    for name, module in list(network.named_modules()):
        if isinstance(module, Adapter):
            continue
        own = {leaf: names[id(p)] for leaf, p in module._parameters.items() if _is_meta(p)}
        if not own:
            continue
        if type(module) is nn.Linear and not f"{name}.".startswith(heads):
            _swap(network, name, RowsLinear(module, own, rows))
        elif _gathers(module) and set(own) == {"weight"}:
            assert isinstance(module, nn.Embedding)
            _swap(network, name, RowsEmbedding(module, own["weight"], rows))
        else:
            _Held(module, own, rows)
    for buffer_name, buffer in list(network.named_buffers()):
        if buffer.device.type == META:
            owner, leaf = _owner(network, buffer_name)
            owner._buffers[leaf] = rows(buffer_name).whole()


class _Held:
    """The parameters of a module, there while it computes."""

    def __init__(self, module: nn.Module, names: Mapping[str, str], rows: Find) -> None:
        self._names, self._rows = names, rows
        self._empty = {leaf: module._parameters[leaf] for leaf in names}
        module.register_forward_pre_hook(self._fill)
        module.register_forward_hook(self._let_go, always_call=True)

    def _fill(self, module: nn.Module, _: Any) -> None:
        for leaf, name in self._names.items():
            value = self._rows(name).whole().float()
            module._parameters[leaf] = nn.Parameter(value, requires_grad=False)

    def _let_go(self, module: nn.Module, *_: Any) -> None:
        module._parameters.update(self._empty)


def _row(rows: Rows, number: int) -> Tensor:
    """One row as [1, width]; blocks of quantised rows begin at multiples of a step."""
    first = number // rows.step * rows.step
    last = min(first + rows.step, rows.count)
    return rows.read(first, last)[number - first : number - first + 1].float()


def _named(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    yield from network.named_parameters(remove_duplicate=False)


def _gathers(module: nn.Module) -> bool:
    """Whether a module is nn.Embedding, or one that multiplies with a scale; others may shift."""
    return type(module) is nn.Embedding or (
        isinstance(module, nn.Embedding) and hasattr(module, "embed_scale")
    )


def _is_meta(parameter: Tensor | None) -> bool:
    return parameter is not None and parameter.device.type == META


def _owner(network: nn.Module, name: str) -> tuple[Any, str]:
    parent, _, leaf = name.rpartition(".")
    return network.get_submodule(parent), leaf


def _swap(network: nn.Module, name: str, module: nn.Module) -> None:
    owner, leaf = _owner(network, name)
    setattr(owner, leaf, module)
