"""Host memory while loading, measured in a fresh process by the bench itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "load_memory.py"


def bench() -> Any:
    specification = importlib.util.spec_from_file_location("load_memory", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # a dataclass looks its module up there
    specification.loader.exec_module(module)
    return module


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_never_more_than_one_tensor_above_the_quantised_size(tmp_path: Path) -> None:
    module = bench()
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    module.write_checkpoint(small, hidden=64, layers=1, vocabulary=320)
    facts = module.write_checkpoint(large, hidden=512, layers=12, vocabulary=32000)
    assert facts["parameters"] > 70_000_000
    result = module.measure("qtune", small, large)
    above = result["peak_both_bytes"] - result["held_bytes"]
    assert above < facts["largest_tensor_bytes"]
    # The same measure sees what is there: all that the model holds, and no file kept mapped.
    assert result["peak_both_bytes"] > 0.9 * result["held_bytes"]
    assert result["end_file_bytes"] < 2**22
