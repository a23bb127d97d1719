"""Every kernel compiles for cards of three generations, without a card."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qtune.ops.element_wise import why_torch
from tests.ops.triton.places import DEVICE

REASON = why_torch(DEVICE)


@pytest.mark.slow
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_kernels_compile(tmp_path: Path) -> None:
    interpreted = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.triton.compiled", "80", "90", "100"],
        env=os.environ | interpreted,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    version, *kernels = done.stdout.splitlines()
    assert version.startswith("triton ")
    families = {line.partition("_")[0] for line in kernels}
    assert families == {"rms", "gated", "nf4", "cross", "rotary"}
    assert len(kernels) == 3 * 3 * 37
