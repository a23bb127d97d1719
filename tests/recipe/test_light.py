"""The language starts fast: no torch, little CPU."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "accelerate", "numpy", "typer", "rich")
MEASURE = """
import sys, time
{statements}
print([name for name in {heavy} if name in sys.modules], time.process_time())
"""


@pytest.mark.parametrize(
    "statements",
    ["import qtune.recipe", "from qtune.recipe import load; load('guanaco-65b')"],
)
def test_nothing_heavy_is_imported_and_it_takes_less_than_half_a_second(statements: str) -> None:
    code = MEASURE.format(statements=statements, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, _, seconds = done.stdout.strip().rpartition(" ")
    assert loaded == "[]"
    assert float(seconds) < 0.5
