"""What devices do in a second, from their makers' data sheets: for estimates, never for limits.

Dense bf16 products with fp32 sums, memory bandwidth, and the link from pinned host memory at what
it gives in practice (PCIe 3: 12, 4: 25, 5: 50 GB/s). Between devices: NVLink where the board has
it, half of the data sheet's sum of both ways; else PCIe through host memory, half of the link. A
CPU's figures are measured, a core; between processes of one machine gloo over loopback, 1 GB/s.
Between machines a network of 100 Gb/s is assumed, of which a ring takes one way in and out of each.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtune.plan.machine import Machine

PCIE_3, PCIE_4, PCIE_5 = 12e9, 25e9, 50e9
NETWORK = 12.5e9
_GIB = 2**30


@dataclass(frozen=True)
class Device:
    """Operations and bytes a second, at best."""

    name: str
    flops: float
    """bf16 multiplications and additions."""
    bandwidth: float
    """Bytes between the device's memory and its cores."""
    link: float
    """Bytes between host and device memory, one way."""
    narrow: float = 8.0
    """How many times faster bf16 is than fp32."""
    starts: float = 5e-6
    """Seconds to start one kernel."""
    wire: str = "PCIe"
    """What joins it with others of its kind."""
    between: float = 0.0
    """Bytes a second that it sends to them, while it receives as many."""
    assumed: bool = False
    """The machine's own name says nothing: the slowest common card of its size."""


def _card(name: str, teraflops: float, gigabytes: float, link: float) -> Device:
    return Device(name, teraflops * 1e12, gigabytes * 1e9, link, between=link / 2)


CARDS: dict[str, tuple[int, Device]] = {
    device.name.lower(): (size, device)
    for size, device in (
        (12, _card("RTX 3060", 26, 360, PCIE_4)),
        (24, _card("RTX 3090", 71, 936, PCIE_4)),
        (16, _card("RTX 4080", 97, 717, PCIE_4)),
        (24, _card("RTX 4090", 165, 1008, PCIE_4)),
        (16, _card("RTX 5080", 113, 960, PCIE_5)),
        (32, _card("RTX 5090", 210, 1792, PCIE_5)),
        (48, _card("RTX A6000", 155, 768, PCIE_4)),
        (48, _card("RTX 6000 Ada", 364, 960, PCIE_4)),
        (96, _card("RTX PRO 6000", 500, 1792, PCIE_5)),
        (24, _card("A10", 125, 600, PCIE_4)),
        (48, _card("A40", 150, 696, PCIE_4)),
        (40, _card("A100", 312, 1555, PCIE_4)),
        (80, _card("A100 80GB", 312, 1935, PCIE_4)),
        (80, _card("A100 SXM4 80GB", 312, 2039, PCIE_4)),
        (24, _card("L4", 60, 300, PCIE_4)),
        (48, _card("L40S", 362, 864, PCIE_4)),
        (48, _card("L40", 181, 864, PCIE_4)),
        (16, _card("T4", 65, 320, PCIE_3)),
        (32, _card("V100", 125, 900, PCIE_3)),
        (80, _card("H100", 989, 3350, PCIE_5)),
        (80, _card("H100 PCIe", 756, 2000, PCIE_5)),
        (94, _card("H100 NVL", 835, 3900, PCIE_5)),
        (141, _card("H200", 989, 4800, PCIE_5)),
        (180, _card("B200", 2250, 8000, PCIE_5)),
    )
}
# One way, of boards that always have it; bridges join pairs at most, and may be missing.
NVLINK = {
    "V100 SXM2": 150e9,
    "A100 SXM4": 300e9,
    "H100": 450e9,
    "H200": 450e9,
    "B200": 900e9,
}
NO_NVLINK = ("PCIe", "NVL")
# What a card of which only the size is known is taken for: the slowest that is common.
_BY_SIZE = {
    0: "rtx 3060",
    16: "rtx 4080",
    20: "rtx 3090",
    30: "rtx 3090",
    40: "rtx a6000",
    60: "a100 80gb",
    120: "h200",
    160: "b200",
}


def device_of(machine: Machine) -> Device:
    """The device of a machine: by its name, else by its memory."""
    if machine.device == "cpu":
        return _cpu(max(1, machine.cores), platform.machine())
    found = card(machine.name)
    if found is not None:
        return _wired(found[1], _words(machine.name))
    size = machine.device_memory / _GIB
    name = _BY_SIZE[max(least for least in _BY_SIZE if least <= size)]
    return replace(_wired(CARDS[name][1], _words(name)), assumed=True)


def _wired(device: Device, words: str) -> Device:
    """With NVLink where a card of this name has it."""
    if any(_words(kind) in words for kind in NO_NVLINK):
        return device
    speeds = (speed for name, speed in NVLINK.items() if _words(name) in words)
    speed = next(speeds, None)
    return device if speed is None else replace(device, wire="NVLink", between=speed)


def _words(name: str) -> str:
    return f" {name.lower().replace('-', ' ')} "


def card(name: str) -> tuple[int, Device] | None:
    """Size in GB and speeds of a card by a name that holds its model, such as NVIDIA A40."""
    words = _words(name)
    known = [key for key in CARDS if f" {key} " in words]
    return CARDS[max(known, key=len)] if known else None


def alike(name: str) -> str:
    """The known card whose name is most like this one; empty when none is."""
    found = get_close_matches(name.lower(), CARDS, n=1, cutoff=0.8)
    return CARDS[found[0]][1].name if found else ""


@cache
def _cpu(cores: int, architecture: str) -> Device:
    """Measured with AVX512-BF16: 250 GFLOPS and 10 GB/s a core; without, as slow as fp32."""
    narrow = 8.0 if _multiplies_bf16() else 1.0
    return Device(
        name=f"{cores} cores ({architecture})",
        flops=30e9 * narrow * cores,
        bandwidth=10e9 * min(cores, 20),
        link=10e9,
        narrow=narrow,
        starts=8e-6,
        wire="memory",
        between=1e9,
    )


def _multiplies_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
