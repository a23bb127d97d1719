"""Versions of Python and the libraries: those that are needed, and those that were tested."""

from __future__ import annotations

import platform
import re
from importlib import metadata

from qtune.run.doctor.finding import Finding

# First and last minor version that the whole suite, or a run on a GPU, was seen to pass with.
TESTED = {
    "torch": ((2, 11), (2, 13)),
    "transformers": ((5, 17), (5, 23)),
    "bitsandbytes": ((0, 50), (0, 50)),
    "accelerate": ((1, 10), (1, 15)),
    "datasets": ((4, 0), (5, 2)),
    "safetensors": ((0, 8), (0, 8)),
    "huggingface-hub": ((1, 0), (2, 4)),
}
_REQUIRED = re.compile(r"([A-Za-z0-9_.-]+)\s*>=\s*([0-9.]+)")


def check_python() -> Finding:
    """The interpreter: 3.11 or newer."""
    version = platform.python_version()
    if _numbers(version) < (3, 11):
        return Finding("python", "fault", version, "qtune needs Python 3.11 or newer")
    return Finding("python", "ok", f"{version}, {platform.system()} {platform.machine()}")


def check_package(name: str) -> Finding:
    """One library; a missing or an older one than pyproject.toml asks for is a fault."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "fault", "not installed", f'pip install "{needed(name)}"')
    numbers = _numbers(version)
    least = needed(name).partition(">=")[2]
    if least and numbers < _numbers(least):
        return Finding(name, "fault", f"{version}, and {least} is needed", f"pip install -U {name}")
    first, last = TESTED[name]
    span = f"{_dotted(first)} to {_dotted(last)}"
    if first <= numbers[:2] <= last:
        return Finding(name, "ok", version)
    older = numbers[:2] < first
    said = f"{version}, {'older' if older else 'newer'} than what was tested"
    return Finding(
        name, "warning", said, f"tested: {span}; should something fail, take one of them"
    )


def needed(name: str) -> str:
    """The requirement of qtune on a package, such as torch>=2.10; the name alone without one."""
    try:
        requirements = metadata.requires("qtune") or []
    except metadata.PackageNotFoundError:
        requirements = []
    for line in requirements:
        match = _REQUIRED.match(line)
        if match and match[1].replace("_", "-").lower() == name and "extra" not in line:
            return f"{name}>={match[2]}"
    return name


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.13.0+cpu is (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else (0,)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
