"""`qtune compare` over sixteen methods on a small model that others pretrained, at equal tokens.

    scripts/bench/methods.py -o FOLDER             the whole comparison: table, picture in results/
    scripts/bench/methods.py -o FOLDER --trial     two methods and few steps, nothing kept

The model and the rows are in ../shared/real, which is no part of the repository. The learning rate
of each method is the best of the one to three that were tried, with one seed, at 40 steps, on the
first 60 rows of the test file; the table is made of its rows from 200 on.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
METHODS = (
    *("lora", "dora", "lora_fa", "dylora", "delta_lora", "adalora", "rosa", "quantum"),
    *("bitfit", "selective", "ia3", "lora-bitfit", "bottleneck", "prefix", "p_tuning", "prompt"),
)
TRIAL = ["--set", "train.max_steps=4", "--set", "data.eval.0.max_rows=16"]


def main() -> int:
    """Run or go on with the comparison; keep its three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trial", action="store_true")
    arguments = parser.parse_args()
    names = ("lora", "prompt") if arguments.trial else METHODS
    seeds = 1 if arguments.trial else arguments.seeds
    words = ",".join(str(HERE / "methods" / f"{name}.yaml") for name in names)
    command = [sys.executable, "-m", "qtune", "compare", str(HERE / "methods.yaml")]
    command += ["--methods", words, "--seeds", str(seeds), "-o", str(arguments.output)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # qtune compare hears it, too, and saves
    started = time.monotonic()
    code = subprocess.run([*command, *(TRIAL if arguments.trial else [])]).returncode
    print(f"{(time.monotonic() - started) / 60:.1f} minutes, exit code {code}")
    if code == 0 and not arguments.trial:
        RESULTS.mkdir(exist_ok=True)
        for kind in ("json", "md", "svg"):
            shutil.copy(arguments.output / f"compare.{kind}", RESULTS / f"methods.{kind}")
    return code


if __name__ == "__main__":
    sys.exit(main())
