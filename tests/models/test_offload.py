"""Layer inputs in host memory: a pass that fails leaves none of them behind."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from qtune.models.offload import HostInputs, _Away


@pytest.mark.gpu
def test_a_pass_that_fails_keeps_nothing_in_host_memory() -> None:
    inputs = HostInputs()
    size = (1 << 10, 1 << 6)

    def forward(*, fails: bool) -> torch.Tensor:
        x = torch.ones(size, device="cuda", requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(inputs.pack, inputs.unpack):
            for _ in range(3):
                x = x.sin()
        if fails:
            seen.extend(weakref.ref(one) for one in gc.get_objects() if isinstance(one, _Away))
            raise torch.OutOfMemoryError
        return x.sum()

    seen: list[weakref.ref[_Away]] = []
    with pytest.raises(torch.OutOfMemoryError):
        forward(fails=True)
    gc.collect()
    assert len(seen) == 3
    assert [one() for one in seen] == [None, None, None]
    forward(fails=False).backward()
