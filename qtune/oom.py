"""Out of memory: what was being done, and what was asked for, whoever refused it. No torch."""

from __future__ import annotations

import errno
import re
import resource
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from qtune.errors import ResourceError
from qtune.plan.machine import host_memory
from qtune.sizes import human

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = "while rows were put together"
LOADING = "while the base was loaded"
STATES = "while the optimizer's states were made"
FORWARD = "in the forward pass"
BACKWARD = "in the backward pass"
UPDATE = "in the optimizer's update"
EVALUATION = "in the evaluation"
GENERATION = "while answers were generated"
# What changes no weight: the step, or the evaluation, can be done again from where it began.
REPEATABLE = (FORWARD, BACKWARD)
MEASURING = (EVALUATION, GENERATION)
HARMLESS = (*REPEATABLE, *MEASURING, ROWS)

_SAID = re.compile(
    r"out of memory|can('|no)t allocate|alloc_failed|bad_alloc|unable to allocate"
    r"|can't start new thread",  # a thread's stack
    re.I,
)
_SIZE = r"([\d.]+) ([KMGTPE]?i?B|bytes)"
_ASKED = re.compile(rf"(?:tried|unable) to allocate {_SIZE}", re.I)
_HELD = re.compile(rf"{_SIZE} is allocated by PyTorch")
_IN_USE = re.compile(rf"this process has {_SIZE} memory in use")
_ALLOWED = re.compile(rf"{_SIZE} allowed")
_FREE = re.compile(rf"of which {_SIZE} is free")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}


class OutOfMemory(ResourceError):  # noqa: N818 - the name is the statement
    """Memory ran out in a phase (one of the constants above) over `tokens`, where it has some.

    `asked`, `held` and `free` are bytes, None where nobody tells them.
    """

    def __init__(self, phase: str, refusal: BaseException, *, tokens: int | None = None) -> None:
        text = str(refusal)
        self.phase, self.tokens = phase, tokens
        self.asked = _bytes(_ASKED, text)
        self.held, self.free = _on_device(text) if _FREE.search(text) else _in_host()
        hint = MEASURING_HINT if phase in MEASURING else HINT
        super().__init__(self.told(), place="memory", hint=hint)

    @property
    def where(self) -> str:
        """What was being done: `in the backward pass of 4,096 tokens`."""
        return self.phase + (f" of {self.tokens:,} tokens" if self.tokens else "")

    def told(self) -> str:
        """What happened, in one line."""
        figures = (("more asked for", self.asked), ("held", self.held), ("free", self.free))
        said = ", ".join(f"{human(size)} {what}" for what, size in figures if size is not None)
        return f"out of memory {self.where}" + (f": {said}" if said else "")


HINT = (
    "halve memory.micro_batch_size, set memory.activations: layer, or see what `qtune plan` "
    "suggests"
)
MEASURING_HINT = "halve eval.batch_size, or measure shorter rows"


@contextmanager
def during(phase: str, *, tokens: int | None = None) -> Iterator[None]:
    """Tell memory that runs out inside as `OutOfMemory` of this phase; the innermost one counts."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(phase, error, tokens=tokens) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python, numpy, torch, bitsandbytes or the system means that memory
    is out; an `OutOfMemory` is told already."""
    # known by their names, so that no light command imports torch to ask
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError) or type(error).__name__ == "SafetensorError":
        return _SAID.search(str(error)) is not None
    return False


def let_go(error: BaseException | None) -> None:
    """Drop the variables of the frames that an error came through: they hold the tensors of the
    pass that failed."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _on_device(text: str) -> tuple[int | None, int | None]:
    """Held and free bytes as CUDA's allocator tells them, within what it may use."""
    held, free = _bytes(_HELD, text), _bytes(_FREE, text)
    allowed, used = _bytes(_ALLOWED, text), _bytes(_IN_USE, text)
    if allowed is not None and used is not None and free is not None:
        free = min(free, max(0, allowed - used))
    return held, free


def _in_host() -> tuple[int | None, int | None]:
    """Resident and free bytes of this process, within its own limit (Linux)."""
    own = status()
    free, _ = host_memory()
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and "VmSize" in own:
        free = min(free, max(0, limit - own["VmSize"]))
    return own.get("VmRSS"), free


def status() -> dict[str, int]:
    """The sizes that the kernel tells of this process, in bytes; none where it tells nothing."""
    found: dict[str, int] = {}
    with suppress(OSError, MemoryError):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if rest.endswith(" kB"):
                found[name] = int(rest.split()[0]) * 1024
    return found


def _bytes(pattern: re.Pattern[str], text: str) -> int | None:
    match = pattern.search(text)
    if match is None:
        return None
    number, unit = match.groups()
    return int(float(number) * _UNITS.get(unit[0].upper(), 1))
