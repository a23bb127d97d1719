"""Memory that is given back, measured in a process that changes nothing for others."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, json, sys
from pathlib import Path
from qtune.run.allocator import give_back_at_once

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def block(size):
    address = library.malloc(ctypes.c_size_t(size))
    library.memset(address, 1, size)
    return address

told = give_back_at_once() if sys.argv[1] == "told" else True
library.free(block(2**24))  # from now on glibc would take 16 MB for a small block
before = held()
blocks = []
for _ in range(8):  # large ones between small ones that stay
    blocks.append(block(2**23))
    block(2**16)
for address in blocks:
    library.free(address)
print(json.dumps([told, held() - before]))
"""

PAGES = """
import ctypes, json, resource, sys
from qtune.run.allocator import give_back_at_once, keep_for_the_next

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

told = give_back_at_once() and (sys.argv[1] == "untold" or keep_for_the_next())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    blocks = [library.malloc(ctypes.c_size_t(2**21)) for _ in range(3)]
    for address in blocks:
        library.memset(address, 1, 2**21)
    for address in blocks:
        library.free(address)
now = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(json.dumps([told, (now - before) * resource.getpagesize()]))
"""


def told_and_untold(script: str) -> dict[str, int]:
    """Bytes that a process says, by whether the C library was told."""
    if "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""):
        pytest.skip("another C library")
    found = {}
    for what in ("told", "untold"):
        arguments = [sys.executable, "-c", script, what]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        told, found[what] = json.loads(done.stdout)
        assert told
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_large_blocks_go_back_to_the_system() -> None:
    kept = told_and_untold(SCRIPT)
    assert kept["told"] < 2**22
    assert kept["untold"] > 2**25


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_blocks_are_kept_for_the_next() -> None:
    new = told_and_untold(PAGES)
    assert new["told"] < 10 * 2**20
    assert new["untold"] > 25 * 6 * 2**20
