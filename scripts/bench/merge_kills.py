"""Kill a merge at random moments and run it again: is the result that of a merge without a break?

    python scripts/bench/merge_kills.py [--rounds 20] [--shape small]

Every round starts the same merge as a process, ends it with SIGKILL at a random moment up to three
times, lets it finish, and compares the sha256 of every weight file with that of a straight merge.
After each kill the output is absent or whole. Processes are forked from one that has imported all
libraries, so that most of their time is the merge and not its start.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

RESULT = Path(__file__).with_suffix(".json")
KILLS = 3
MERGE = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import merge_speed
merge_speed.make(Path({place!r}), {shape!r})
"""


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of the files of a merged model but for the journal, whose accounts are added up."""
    files = [path for path in sorted(folder.iterdir()) if path.name != "README.md"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(place: Path, target: Path, shard: str) -> int:
    """A merge in a process of its own; its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        import torch

        from qtune.run.display import Quiet
        from qtune.run.merge import merge

        torch.set_num_threads(1)
        merge(
            str(place / "adapter"),
            target,
            base=str(place / "base"),
            settings={"max_shard_size": shard},
            display=Quiet(),
        )
        code = 0
    finally:
        os._exit(code)


def finished(number: int, seconds: float, *, behind: Path | None = None) -> bool:
    """Whether a process ended well within so many seconds, counted from its first bytes beside
    `behind` where that is named; it is killed else."""
    end = time.perf_counter() + seconds if behind is None else None
    while end is None or time.perf_counter() < end:
        if end is None and behind is not None and staged(behind):
            end = time.perf_counter() + seconds
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            if os.waitstatus_to_exitcode(status):
                sys.exit("a merge failed by itself")
            return True
        time.sleep(0.001)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return False


def staged(target: Path) -> list[Path]:
    """The files that a merge wrote and did not yet publish."""
    return [*target.parent.glob(f".{target.name}.*.merge/model-*")]


def one_round(
    run: Callable[[Path], int],
    target: Path,
    seconds: float,
    writing: float,
    draw: random.Random,
    expected: dict[str, str],
) -> dict[str, Any]:
    """Break a merge (`run` starts one) a few times, then let it finish."""
    deaths: list[dict[str, Any]] = []
    for number in range(KILLS):
        # the first kill comes anywhere, the others while files are written and verified
        moment = draw.uniform(0.0, seconds if number == 0 else writing)
        if finished(run(target), moment, behind=target if number else None):
            break
        whole = target.exists()
        kept = len([path for path in staged(target) if path.suffix == ".safetensors"])
        deaths.append({"after": round(moment, 2), "files_kept": kept, "published": whole})
        if whole:
            break
    if not target.exists() and not finished(run(target), 600):
        sys.exit("a merge does not end")
    left = [path.name for path in target.parent.iterdir() if path.name.startswith(".")]
    return {"kills": deaths, "equal": hashes(target) == expected, "left_behind": left}


def summed(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """What came of all rounds so far."""
    deaths = [death for told in rounds for death in told["kills"]]
    return {
        "rounds": len(rounds),
        "kills": len(deaths),
        "kills_with_finished_files": sum(death["files_kept"] > 0 for death in deaths),
        "equal": sum(told["equal"] and not told["left_behind"] for told in rounds),
        "each": rounds,
    }


def main() -> None:
    """Run every round and write what came of them."""
    parser = argparse.ArgumentParser(description="Kill a merge and run it again.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--shape", default="small")
    parser.add_argument("--shard", default="3MB", help="largest weight file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        here = str(Path(__file__).parent)
        script = MERGE.format(here=here, place=temporary, shape=asked.shape)
        subprocess.run([sys.executable, "-c", script], check=True)
        import qtune.run.merge  # noqa: F401 - each process begins with it

        (place / "straight").mkdir()
        run = partial(start, place, shard=asked.shard)
        finished(run(place / "straight" / "warm"), 600)
        began = time.perf_counter()
        straight = place / "straight" / "merged"
        process = run(straight)
        while not staged(straight) and not straight.exists():
            time.sleep(0.001)
        writing = time.perf_counter()
        finished(process, 600)
        seconds, writing = time.perf_counter() - began, time.perf_counter() - writing
        expected = hashes(place / "straight" / "merged")
        facts = {
            "shape": asked.shape,
            "weight_files": len([name for name in expected if name.endswith(".safetensors")]),
            "straight_seconds": round(seconds, 2),
            "of_which_writing_and_verifying": round(writing, 2),
        }
        rounds: list[dict[str, Any]] = []
        report: dict[str, Any] = {}
        for number in range(asked.rounds):
            folder = place / f"round-{number}"
            folder.mkdir()
            told = one_round(run, folder / "merged", seconds, writing, draw, expected)
            rounds.append(told)
            sys.stderr.write(f"round {number + 1}: {told}\n")
            report = facts | summed(rounds)
            asked.output.write_text(json.dumps(report, indent=2) + "\n")
    sys.stdout.write(json.dumps({key: report[key] for key in report if key != "each"}) + "\n")
    sys.exit(report["equal"] != report["rounds"])


if __name__ == "__main__":
    main()
