"""Where a run ran: versions and the machine, no secrets, no paths."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

PACKAGES = ("torch", "transformers", "bitsandbytes", "accelerate", "datasets", "safetensors")


def environment() -> dict[str, Any]:
    """The facts of env.json."""
    return {
        "qtune": metadata.version("qtune"),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
