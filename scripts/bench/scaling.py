"""What the plan says of a 70B model on several devices: bytes and seconds, predicted and no more.

Needs no GPU, no weights and no network; every row is one `qtune plan --json`.

  scripts/bench/scaling.py --output scripts/bench/scaling.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RECIPE = "llama-70b-48gb"
SETTINGS = ["memory.budget=null"]
CASES: dict[str, list[str]] = {
    "1 x 24 GB": ["--gpu", "24GB"],
    "2 x 24 GB": ["--gpu", "24GB", "--processes", "2"],
    "2 x 24 GB, shared": [
        *("--gpu", "24GB", "--processes", "2", "--set", "distributed.strategy=fsdp"),
    ],
    "8 x 24 GB": ["--gpu", "24GB", "--processes", "8"],
    "1 x 80 GB": ["--gpu", "80GB"],
    "8 x 80 GB": ["--gpu", "80GB", "--processes", "8"],
    "8 x H100": ["--gpu", "H100", "--processes", "8"],
    "16 x H100, 2 machines": ["--gpu", "H100", "--processes", "16", "--machines", "2"],
}


def planned(words: list[str]) -> dict[str, Any]:
    """One plan, the figures of the table."""
    settings = [part for each in SETTINGS for part in ("--set", each)]
    command = [sys.executable, "-m", "qtune", "plan", RECIPE, *words, *settings, "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    keys = ("strategy", "base", "offload", "activations", "micro_batch_size", "device")
    keys += ("device_bytes", "budget_bytes", "host_bytes", "seconds_per_step", "tokens_per_second")
    return {key: found[key] for key in ("processes", *keys)} | (found["distribution"] or {})


def line(name: str, found: dict[str, Any]) -> str:
    """A row of a table in Markdown."""
    held = {"ddp": "whole", "fsdp": f"1/{found['processes']}", "none": "whole"}[found["strategy"]]
    held += ", streamed" if found["base"] == "stream" else ", in host memory" * found["offload"]
    sent = (found.get("gradient_bytes", 0) + found.get("weight_bytes", 0)) / 1e9
    cells = [
        name,
        held,
        f"{found['device_bytes'] / 1e9:.1f} GB",
        f"{found['processes'] * found['host_bytes'] / 1e9:.0f} GB",
        f"{sent:.1f} GB ({found['wire']})" if "wire" in found else "",
        f"{found['exchange_share']:.0%}" if "wire" in found else "",
        f"{found['seconds_per_step']:.1f} s",
        f"{found['speed_up']:.1f}" if found.get("speed_up") else "",
    ]
    return f"| {' | '.join(cells)} |"


HEAD = """\
| devices | 4-bit layers | each device | host | each sends a step | of it | a step | times one |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Every case; a table, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    found = {name: planned(words) for name, words in CASES.items()}
    print(HEAD)
    for name, each in found.items():
        print(line(name, each))
    if asked.output:
        facts = {"recipe": RECIPE, "settings": SETTINGS, "predicted": True, "cases": found}
        asked.output.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
