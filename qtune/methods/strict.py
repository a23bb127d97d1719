"""A set of tensors either is exactly what it should be, or the error lists what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.errors import Fault, ModelError, first_few

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def refuse_differences(
    expected: Mapping[str, Tensor], given: Mapping[str, Tensor], *, what: str
) -> None:
    """`ModelError` with one line each for missing, foreign and misshapen names."""
    missing = [name for name in expected if name not in given]
    foreign = [name for name in given if name not in expected]
    misshapen = [
        f"{name} {_shape(given[name])} instead of {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    faults = [
        Fault(message=f"{len(names)} of the {what}'s tensors {kind}: {first_few(names)}")
        for kind, names in (
            ("are missing", missing),
            ("have no place in this model", foreign),
            ("have another shape", misshapen),
        )
        if names
    ]
    if faults:
        raise ModelError.of(faults)


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"
