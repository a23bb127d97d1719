"""Memory that runs out, told by who was working and what was asked for."""

from __future__ import annotations

import errno
import weakref

import numpy as np
import pytest
import torch

from qtune import oom
from qtune.errors import ResourceError
from qtune.oom import OutOfMemory, during, is_out_of_memory, let_go

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 9.50 GiB is free. Including non-PyTorch memory, this process has 69.60 GiB memory in "
    "use. 70.00 GiB allowed; Of the allocated memory 68.00 GiB is allocated by PyTorch, and 512.00 "
    "MiB is reserved by PyTorch but unallocated."
)


def test_the_device_tells_what_was_asked_held_and_free() -> None:
    with pytest.raises(OutOfMemory) as caught, during(oom.BACKWARD, tokens=4096):
        raise torch.OutOfMemoryError(CUDA)
    error = caught.value
    assert (error.asked, error.held) == (2 * 2**30, 68 * 2**30)
    assert error.free == int(70.0 * 2**30) - int(69.6 * 2**30)  # of what it may use, not of 9.5
    assert str(error.faults[0].message) == (
        "out of memory in the backward pass of 4,096 tokens: 2.15 GB more asked for, "
        "73.0 GB held, 429 MB free"
    )
    assert int(error.code) == 5


def test_a_real_refusal_of_torch_on_the_cpu() -> None:
    with pytest.raises(OutOfMemory) as caught, during(oom.FORWARD):
        torch.empty(2**58, dtype=torch.uint8)
    assert caught.value.asked == 2**58
    assert caught.value.held is not None
    assert caught.value.held > 10 * 2**20
    assert caught.value.free is not None


def test_a_real_refusal_of_numpy() -> None:
    with pytest.raises(OutOfMemory) as caught, during(oom.STATES):
        np.ones(2**58, dtype=np.uint8)
    assert caught.value.asked == 2**58


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        ResourceError("out of memory somewhere"),
    ],
)
def test_what_does_not(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), during(oom.FORWARD):
        raise error


def test_the_innermost_phase_counts() -> None:
    with (
        pytest.raises(OutOfMemory, match="in the forward pass of 12 tokens"),
        during(oom.EVALUATION),
        during(oom.FORWARD, tokens=12),
    ):
        raise MemoryError


def test_an_evaluation_has_a_batch_size_of_its_own() -> None:
    with pytest.raises(OutOfMemory, match=r"halve eval\.batch_size"), during(oom.EVALUATION):
        raise MemoryError


def test_what_a_failed_pass_held_can_be_let_go() -> None:
    seen: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        large = torch.zeros(8)
        seen.append(weakref.ref(large))
        with during(oom.FORWARD):
            raise MemoryError

    with pytest.raises(OutOfMemory) as caught:
        work()
    assert seen[0]() is not None
    let_go(caught.value)
    assert seen[0]() is None
