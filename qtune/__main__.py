"""`qtune`, and `python -m qtune`: the command line, from its very first moment.

Importing the command line takes a while, in which a signal would end in a traceback: until the
command line listens itself there is nothing to lose, and the process just ends.
"""

import io
import os
import signal
import sys
from typing import NoReturn

from qtune.parent import end_with_parent

_NAMES = {signal.SIGHUP: "hangup", signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def main() -> NoReturn:
    """Run the command line."""
    if _are_cores_taken():
        # Threads that turn round while they wait for one another make two threads on two busy cores
        # ten times slower than one; on idle cores they are 1.4 times faster than threads that
        # sleep. OpenMP reads this when torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # the order of nvidia-smi, by which GPUs are planned for; CUDA's own begins with the fastest
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if "RANK" in os.environ:  # that another process of the run has ended is told in a line of ours
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    _open_streams()
    for number in _NAMES:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
            signal.signal(number, _leave)
    end_with_parent()
    from qtune.cli.app import main as run

    run()


def _are_cores_taken() -> bool:
    """Whether other processes want all cores at this moment, as far as Linux tells."""
    try:
        with open("/proc/loadavg", encoding="ascii") as file:  # noqa: PTH123 - before any import
            running = file.read().split()[3].partition("/")[0]
        return int(running) - 1 >= (os.cpu_count() or 1)
    except (OSError, IndexError, ValueError):
        return False


def _open_streams() -> None:
    """Streams that the caller has closed lead nowhere. Otherwise the next file that is opened gets
    the number of one of them, and what a C library says there is written into a checkpoint."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot write is no fault
            stream.reconfigure(errors="backslashreplace")


def _leave(number: int, _: object) -> NoReturn:
    """End with a line, and under --json with the object of every failure; of the processes of one
    run the first one speaks."""
    speaks = os.environ.get("RANK", "0") == "0"
    if speaks:
        os.write(2, b"stopped\n")
    if speaks and "--json" in sys.argv:
        fault = '{"message": "stopped", "place": "", "hint": ""}'
        error = f'{{"kind": "{_NAMES[signal.Signals(number)]}", "faults": [{fault}]}}'
        os.write(1, f'{{"error": {error}, "exit_code": {128 + number}}}\n'.encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main()
