"""A stand-in for a process of a run: it writes down the signals it gets, and does what the word for
its rank says. It runs alone: `python worker.py FOLDER WORD WORD ...`, a word for each rank."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from qtune.parent import end_with_parent
from qtune.ranks import ENDS, word_of

FOLDER, RANK = Path(sys.argv[1]), int(os.environ["RANK"])
WORD = sys.argv[2 + RANK]
LONG = 60.0
got: list[int] = []


def note(number: int, _: object) -> None:
    got.append(number)
    with (FOLDER / f"signals {RANK}").open("a") as file:
        file.write(f"{number}\n")


def until(done: Path) -> None:
    end = time.monotonic() + 60
    while not done.exists() and time.monotonic() < end:
        time.sleep(0.005)


def listen() -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, note)
    (FOLDER / f"listens {RANK}").touch()


def all_listen() -> None:
    for rank in range(int(os.environ["WORLD_SIZE"])):
        until(FOLDER / f"listens {rank}")


def save(rest: str) -> None:
    """After the first signal to stop, for a while, then end as a run that was stopped."""
    while not (stops := [number for number in got if number != signal.SIGUSR1]):
        time.sleep(0.005)
    time.sleep(float(rest))
    (FOLDER / f"saved {RANK}").touch()
    sys.exit(128 + stops[0])


def deaf(_: str) -> None:
    """To all that can be ignored."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    early(str(LONG))


def early(rest: str) -> None:
    """The others' signals come before it listens."""
    (FOLDER / f"listens {RANK}").touch()
    time.sleep(float(rest))


def tell(rest: str) -> None:
    """Signals for the parent, with pauses after them."""
    all_listen()
    for each in rest.split(","):
        number, _, pause = each.partition("/")
        os.kill(os.getppid(), int(number))
        time.sleep(float(pause or 0))
    save("0")


def die(rest: str) -> None:
    """By a signal, with a child of its own."""
    all_listen()
    child = subprocess.Popen(["sleep", str(LONG)])
    (FOLDER / "grandchild").write_text(str(child.pid))
    os.kill(os.getpid(), int(rest))


def read(_: str) -> None:
    """Takes what is told of another one's death, and says it."""
    told = Path(os.environ[ENDS])
    until(told)
    (FOLDER / "read").write_text(told.read_text())
    told.unlink()
    sys.exit(5)


def fault(rest: str) -> None:
    """Leaves a word for the first one, and ends with a code."""
    all_listen()
    word = {"message": rest, "place": "rows.jsonl:3", "hint": ""}
    word_of(Path(os.environ[ENDS]), RANK).write_text(json.dumps([word]))
    if rest == "hangs":
        deaf("")
    sys.exit(3)


def leave(rest: str) -> None:
    """With a code, after a while."""
    code, _, pause = rest.partition("/")
    all_listen()
    time.sleep(float(pause or 0))
    sys.exit(int(code))


def say(_: str) -> None:
    """A line, and a piece of one."""
    sys.stdout.write("of no interest\n")
    sys.stderr.write("first line\nsecond")


def environment(_: str) -> None:
    """What it has found."""
    (FOLDER / f"environment {RANK}").write_text(repr(dict(os.environ)))


VERBS = {
    "tell": tell,
    "save": save,
    "die": die,
    "exit": leave,
    "fault": fault,
    "read": read,
    "say": say,
    "environment": environment,
}


def main() -> None:
    end_with_parent()
    verb, _, rest = WORD.partition(":")
    if verb in ("deaf", "early"):
        {"deaf": deaf, "early": early}[verb](rest)
    else:
        listen()
        VERBS[verb](rest)


main()
