"""Safetensors files written part by part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from qtune.durable import write_parts
from qtune.methods.safetensors_file import NAMES, file_parts

SAVE = """
import resource, sys, torch
from pathlib import Path
from qtune.durable import write_parts
from qtune.methods.safetensors_file import file_parts
tensors = {str(number): torch.ones(2**22) for number in range(8)}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_parts(Path(sys.argv[1]), file_parts(tensors, {}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def _tensors() -> dict[str, torch.Tensor]:
    whole = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in NAMES}
    return whole | {
        "empty": torch.empty(0, 4),
        "one": torch.tensor(2.5),
        "turned": torch.arange(6.0).reshape(2, 3).T,
    }


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    tensors = _tensors()
    path = tmp_path / "a.safetensors"
    write_parts(path, file_parts(tensors, {"format": "pt", "note": "\u00e9"}))
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "note": "\u00e9"}


def test_equal_tensors_are_equal_files() -> None:
    tensors = _tensors()
    turned = dict(reversed(tensors.items()))
    one = b"".join(file_parts(tensors, {"a": "1", "b": "2"}))
    assert one == b"".join(file_parts(turned, {"b": "2", "a": "1"}))


def test_a_file_takes_no_memory_beside_its_tensors(tmp_path: Path) -> None:
    """128 MiB of tensors; what the process grows by is not theirs again."""
    path = tmp_path / "a.safetensors"
    command = [sys.executable, "-c", SAVE, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert path.stat().st_size > 2**27
    assert int(done.stdout) * 1024 < 2**25
    path.unlink()


def test_a_dtype_that_adapters_do_not_have_is_a_fault() -> None:
    with pytest.raises(KeyError):
        list(file_parts({"a": torch.zeros(1, dtype=torch.complex64)}, {}))
