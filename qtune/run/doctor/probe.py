"""The process that tries the device: one finding a line, as JSON, on stdout.

python -m qtune.run.doctor.probe
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from qtune.run.doctor import device
from qtune.run.doctor.finding import Finding, guarded

if TYPE_CHECKING:
    from collections.abc import Callable

_BITS = "reinstall it: pip install -U bitsandbytes; python -m bitsandbytes tells what it found"
CHECKS: dict[str, tuple[Callable[[], Finding], str]] = {
    "device": (device.check_device, device.DRIVER),
    "bf16": (device.check_bf16, device.DRIVER),
    "4-bit step": (device.check_four_bits, _BITS),
    "paged optimizer": (device.check_paged_optimizer, _BITS),
    "Triton kernels": (device.check_triton, "torch computes without; see that gcc is installed"),
}


def main() -> None:
    """Try everything in order; each line is there before the next check begins."""
    for name, (check, advice) in CHECKS.items():
        found = guarded(name, check, advice=advice)
        sys.stdout.write(json.dumps(found.to_dict()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
