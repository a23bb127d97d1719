"""Seconds of a block, on a device that works while the host goes on."""

from __future__ import annotations

import time

import pytest
import torch

from qtune.training.stopwatch import Stopwatch

PAUSE = 0.02


def test_a_block_on_the_cpu_is_timed() -> None:
    with Stopwatch(torch.device("cpu")) as watch:
        time.sleep(PAUSE)
    assert watch.seconds() >= PAUSE
    assert watch.seconds() == watch.seconds()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_block_on_a_gpu_is_timed_there() -> None:
    device = torch.device("cuda")
    left = torch.randn(2048, 2048, device=device)
    with Stopwatch(device) as watch:
        for _ in range(50):
            left @ left
    torch.cuda.synchronize()
    assert watch.seconds() > 0.0
