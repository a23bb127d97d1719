"""The language starts fast: it imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "accelerate", "numpy", "typer", "rich")
MEASURE = """
import sys
{statements}
print([name for name in {heavy} if name in sys.modules])
"""


@pytest.mark.parametrize(
    "statements",
    ["import qtune.recipe", "from qtune.recipe import load; load('guanaco-65b-48gb')"],
)
def test_nothing_heavy_is_imported(statements: str) -> None:
    code = MEASURE.format(statements=statements, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
