"""Processes that run one function of a test together, over gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 300  # seconds; a busy machine imports slowly


def together(module: str, *words: str, size: int = 2, folder: Path) -> list[dict[str, Any]]:
    """Run `python -m module words` in so many processes; what each left as JSON, by rank.

    They find their seats in the environment, and the file to write last.
    """
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    told = [folder / f"rank-{rank}.json" for rank in range(size)]
    ours = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ours |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", module, *words, str(path)],
            cwd=ROOT,
            env={**os.environ, **ours, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, path in enumerate(told)
    ]
    try:
        said = [process.communicate(timeout=LONGEST)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    for path, words_said in zip(told, said, strict=True):
        assert path.is_file(), words_said[-3000:]
    return [json.loads(path.read_text()) for path in told]
