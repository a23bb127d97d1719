"""The state of an optimizer as named tensors and numbers: what a checkpoint carries of it.

No pickle, and no `load_state_dict`: it casts 32-bit states to the parameter's dtype and puts paged
states into ordinary memory. Here every state is made by the optimizer itself and then filled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qtune.errors import ModelError, first_few

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.nn import Parameter
    from torch.optim import Optimizer

Numbers = dict[str, int | float | bool]


def state_of(
    optimizer: Optimizer, parameters: Mapping[str, Parameter]
) -> tuple[dict[str, Tensor], Numbers]:
    """Every state tensor, on the CPU, and every plain number, by `parameter/key`."""
    tensors: dict[str, Tensor] = {}
    numbers: Numbers = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{key}"] = value.detach().to("cpu", copy=True).contiguous()
            elif value is not None:
                numbers[f"{name}/{key}"] = value
    return tensors, numbers


def load_state(
    optimizer: Optimizer,
    parameters: Mapping[str, Parameter],
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, int | float | bool],
) -> None:
    """Take back what `state_of` gave; `ModelError` if it is of other parameters or of another
    optimizer."""
    given: dict[str, dict[str, Any]] = {name: {} for name in parameters}
    for label, value in [*tensors.items(), *numbers.items()]:
        name, _, key = label.rpartition("/")
        if name not in given:
            raise ModelError(f"optimizer state of {name or label}, which does not train here")
        given[name][key] = value
    missing = [n for n, entries in given.items() if not entries and parameters[n].requires_grad]
    if missing and (tensors or numbers):
        raise ModelError(f"no optimizer state for {first_few(missing)}")
    names = {id(parameter): name for name, parameter in parameters.items()}
    for group, parameter, place in _places(optimizer):
        name = names[id(parameter)]
        if given[name]:
            _fill(optimizer, group, parameter, place, given[name], name=name)


def _places(
    optimizer: Optimizer,
) -> Iterator[tuple[dict[str, Any], Parameter, tuple[int, int]]]:
    for group_number, group in enumerate(optimizer.param_groups):
        for number, parameter in enumerate(group["params"]):
            yield group, parameter, (group_number, number)


def _fill(
    optimizer: Any,
    group: dict[str, Any],
    parameter: Parameter,
    place: tuple[int, int],
    entries: Mapping[str, Any],
    *,
    name: str,
) -> None:
    if not hasattr(optimizer, "init_state"):  # torch's own make their state in the first step
        optimizer.state[parameter] = {
            key: _placed(value, parameter, f"{name}/{key}", fused=bool(group.get("fused")))
            for key, value in entries.items()
        }
        return
    with torch.no_grad():
        optimizer.init_state(group, parameter, *place)
    state = optimizer.state[parameter]
    if state.keys() != entries.keys():
        found, needed = ", ".join(sorted(entries)), ", ".join(sorted(state))
        raise ModelError(f"optimizer state of {name} holds {found}; this optimizer has {needed}")
    for key, value in entries.items():
        if not isinstance(value, Tensor):
            state[key] = value
            continue
        own = state[key]
        if (own.shape, own.dtype) != (value.shape, value.dtype):
            raise _other(f"{name}/{key}", value, own)
        own.copy_(value)


def _placed(value: Any, parameter: Parameter, label: str, *, fused: bool) -> Any:
    """A state of torch's optimizers; its step counters are scalars, on the device if it is fused
    and else on the CPU."""
    if not isinstance(value, Tensor):
        return value
    if value.ndim == 0:
        return value.to(parameter.device if fused else "cpu", copy=True)
    if value.shape != parameter.shape:
        raise _other(label, value, parameter)
    return value.to(parameter.device, copy=True)


def _other(label: str, given: Tensor, own: Tensor) -> ModelError:
    return ModelError(
        f"optimizer state {label} is {given.dtype} {list(given.shape)}, "
        f"here it is {own.dtype} {list(own.shape)}"
    )
