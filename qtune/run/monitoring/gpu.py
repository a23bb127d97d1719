"""A GPU read through NVIDIA's management library, which asks the driver and waits for no kernel."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch

_MILLI = 1e-3


class Gpu:
    """One device of NVML; what a card does not tell is left out."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._nvml = library
        self._handle = handle

    @classmethod
    def of(cls, device: torch.device) -> Self | None:
        """The card of a CUDA device; None for a CPU, or where nvidia-ml-py or its driver is not
        there."""
        if device.type != "cuda":
            return None
        try:
            library: Any = importlib.import_module("pynvml")
        except ImportError:
            return None
        return cls.found(library, _identity(device))

    @classmethod
    def found(cls, library: Any, identity: str) -> Self | None:
        """The card of that UUID, which stays the same whatever CUDA_VISIBLE_DEVICES hides."""
        try:
            library.nvmlInit()
            return cls(library, library.nvmlDeviceGetHandleByUUID(identity))
        except library.NVMLError:
            return None

    def read(self) -> dict[str, float]:
        """Share of time with a kernel running, bytes in use by all processes, watts, degrees."""
        nvml, handle = self._nvml, self._handle
        found: dict[str, float] = {}
        with suppress(nvml.NVMLError):
            found["gpu_share"] = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        with suppress(nvml.NVMLError):
            found["gpu_bytes"] = float(nvml.nvmlDeviceGetMemoryInfo(handle).used)
        with suppress(nvml.NVMLError):
            found["gpu_watts"] = nvml.nvmlDeviceGetPowerUsage(handle) * _MILLI
        with suppress(nvml.NVMLError):
            sensor = nvml.NVML_TEMPERATURE_GPU
            found["gpu_celsius"] = float(nvml.nvmlDeviceGetTemperature(handle, sensor))
        return found

    def close(self) -> None:
        """Let the library go."""
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()


def _identity(device: torch.device) -> str:
    import torch

    identity = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    return identity if identity.startswith("GPU-") else f"GPU-{identity}"
