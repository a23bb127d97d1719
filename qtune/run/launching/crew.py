"""The processes of a run on one machine, from their start to the end of the last one.

torch's own agent (torchrun, `start_processes`) ends every process as soon as one exits with
another code than 0. A run that is stopped ends with 143, whoever has nothing to write first, and
the one that still saves would get a second signal, then be killed after 30 seconds. It also exits
with 1 whatever the processes say, and takes USR1 for its end. So this is our own, and small.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from qtune.durable import write_json
from qtune.errors import ECHO_SECONDS, STOP_SIGNALS
from qtune.ranks import word_of
from qtune.run.launching.ends import End, code_of, last_word
from qtune.run.launching.environment import environments, held_port
from qtune.run.launching.signals import deaf, heard
from qtune.run.launching.voices import Voices

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from qtune.errors import Fault


_LOOK = 1.0  # seconds between two looks for a fault that was told


@dataclass(frozen=True, kw_only=True)
class Graces:
    """Seconds: for the others to end by themselves after one has failed, and tell why; for those
    who outlive the first one, which writes all; for one to end that has told its fault, where
    NCCL may wait for the others; after TERM; and after a second signal to us."""

    own_end: float = 5.0
    after_first: float = 30.0
    after_fault: float = 60.0
    after_term: float = 3.0
    after_second: float = 2.0


@dataclass(frozen=True)
class Outcome:
    """The exit code of a run; a fault that no process has told; whether the first one was not
    killed, and so has left its object on stdout."""

    code: int
    fault: Fault | None
    first_spoke: bool


def launch(
    command: Sequence[str],
    size: int,
    *,
    say: Callable[[str], object],
    on_terminal: bool = False,
    graces: Graces = Graces(),
) -> Outcome:
    """Run a command as so many processes; the first one has our terminal, of the others only
    stderr comes through `say`. None of them is left when this returns."""
    voices = Voices(say, held=on_terminal)
    with held_port() as port, heard() as signals, tempfile.TemporaryDirectory() as place:
        told = Path(place) / "killed.json"
        with Crew(signals, voices, graces, told) as crew:
            crew.start(command, environments(size, port, told))
            crew.watch()
        voices.release()
        code, fault = code_of(crew.ends)
        if crew.cut_short is not None:
            code, fault = crew.cut_short, None
        first = next((end for end in crew.ends if end.rank == 0), None)
        if fault is None and (first is None or first.forced) and crew.cut_short is None:
            fault = last_word(crew.ends, told)
        spoke = first is not None and first.code >= 0
        return Outcome(code, fault if crew.untold else None, spoke)


class Crew:
    """The processes of a run; each is the head of a process group of its own, so that a signal,
    a terminal's Ctrl-C too, reaches it once: through us.

    `ends`: of those that are over, in the order in which that was seen. `cut_short`: the code of
    a second signal, which ended all at once. `told`: where one that was killed is told of.
    """

    def __init__(self, signals: socket.socket, voices: Voices, graces: Graces, told: Path) -> None:
        self.ends: list[End] = []
        self.cut_short: int | None = None
        self._signals, self._voices, self._graces, self._told = signals, voices, graces, told
        self._alive: dict[int, subprocess.Popen[bytes]] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals, selectors.EVENT_READ)
        self._asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._term_at: float | None = None
        self._kill_at: float | None = None
        self._forcing = self._has_told = False

    @property
    def untold(self) -> bool:
        """Whether the first process has not taken what we tell of one that was killed, which it
        says then."""
        return not self._has_told or self._told.exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for rank in list(self._alive):
            self._kill(rank)
            self._take_end(rank, wait=True)
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                self._voices.read(*key.data)
                os.close(key.data[1])
        self._selector.close()

    def start(self, command: Sequence[str], environments: Sequence[dict[str, str]]) -> None:
        """Start a process for each environment."""
        with deaf():
            for rank, environment in enumerate(environments):
                self._alive[rank] = self._begin(command, rank, environment)

    def watch(self) -> None:
        """Pass on signals and lines until all have ended."""
        while self._alive:
            for key, _ in self._selector.select(self._time_left()):
                if key.data is not None:
                    self._listen(*key.data)
            for number in self._received():
                self._on_signal(signal.Signals(number))
            for rank in list(self._alive):
                self._take_end(rank)
            self._on_time()

    def _begin(
        self, command: Sequence[str], rank: int, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        if rank == 0:
            return subprocess.Popen(command, env=environment, process_group=0)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self._selector.register(reader, selectors.EVENT_READ, (rank, reader))
        try:
            return subprocess.Popen(
                command,
                env=environment,
                process_group=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=writer,
            )
        finally:
            os.close(writer)

    def _listen(self, rank: int, source: int) -> None:
        if not self._voices.read(rank, source):
            self._selector.unregister(source)
            os.close(source)

    def _received(self) -> bytes:
        try:
            return self._signals.recv(4096)
        except BlockingIOError:
            return b""

    def _on_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGTSTP:
            self._pause()
        elif number == signal.SIGUSR1:
            self._send(number)
        elif number in STOP_SIGNALS:
            self._stop(number)

    def _stop(self, number: signal.Signals) -> None:
        """The first signal reaches all, who save; a second one ends them whatever they do."""
        now = time.monotonic()
        if self._asked is None:
            self._asked, self._asked_at = number, now
            self._send(number)
        elif now - self._asked_at >= ECHO_SECONDS and self.cut_short is None:
            self.cut_short = int(STOP_SIGNALS[number])
            self._forcing = True
            self._send(number)
            self._kill_at = now + self._graces.after_second

    def _pause(self) -> None:
        """Ctrl-Z stops all, and going on continues all."""
        self._send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._send(signal.SIGCONT)

    def _take_end(self, rank: int, *, wait: bool = False) -> None:
        """Take note of a process that has ended; what it has started itself ends with one that
        was killed."""
        process = self._alive[rank]
        look = os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)
        found = os.waitid(os.P_PID, process.pid, look)
        if found is None:
            return
        if found.si_code != os.CLD_EXITED:
            self._kill(rank)  # while its number is still its own
        code = process.wait()
        del self._alive[rank]
        if self._asked is not None and code == -self._asked:  # it did not listen yet
            code = int(STOP_SIGNALS[self._asked])
        end = End(rank, code, forced=self._forcing)
        self.ends.append(end)
        if code < 0 and not end.forced and not self._has_told:
            self._tell(end.fault)
        if rank == 0:
            self._voices.release()
        if self._kill_at is None:
            self._give_time(end)

    def _tell(self, fault: Fault) -> None:
        with suppress(OSError):  # a full disk: then we say it ourselves
            write_json(self._told, {"message": fault.message, "hint": fault.hint})
            self._has_told = True

    def _give_time(self, end: End) -> None:
        """The others may go on where they have agreed on this end, and the first one is there."""
        if end.agreed and end.rank:
            return
        grace = self._graces.after_first if end.agreed else self._graces.own_end
        until = time.monotonic() + grace
        self._term_at = until if self._term_at is None else min(self._term_at, until)

    def _time_left(self) -> float:
        times = [each for each in (self._term_at, self._kill_at) if each is not None]
        return max(0.0, min([*times, time.monotonic() + _LOOK]) - time.monotonic())

    def _on_time(self) -> None:
        now = time.monotonic()
        ending = self._term_at is not None or self._kill_at is not None
        if not ending and any(word_of(self._told, rank).exists() for rank in self._alive):
            self._term_at = now + self._graces.after_fault
        if self._term_at is not None and now >= self._term_at:
            self._term_at, self._kill_at = None, now + self._graces.after_term
            self._forcing = True
            self._send(signal.SIGTERM)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            for rank in self._alive:
                self._kill(rank)

    def _send(self, number: signal.Signals) -> None:
        for process in self._alive.values():
            os.kill(process.pid, number)  # which is there: nobody else takes its end

    def _kill(self, rank: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._alive[rank].pid, signal.SIGKILL)
