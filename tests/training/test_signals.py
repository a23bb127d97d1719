"""Signals ask for an end; they do not make one."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from qtune.training import stop_on_signals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_the_first_signal_sets_the_exit_code(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert stop.code is None
        signal.raise_signal(number)
        assert stop.code == code
    assert signal.getsignal(number) is before


TWICE = """
import signal, sys, time
from qtune.training import signals
if sys.argv[1] == "later":
    signals.ECHO_SECONDS = 0.0
with signals.stop_on_signals() as stop:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    sys.exit(int(stop.code))
"""


@pytest.mark.parametrize(("when", "code"), [("at once", 130), ("later", -signal.SIGINT)])
def test_an_echo_of_the_first_signal_is_no_second_one(when: str, code: int) -> None:
    """A launcher that passes on Ctrl-C must not cost the checkpoint."""
    done = subprocess.run([sys.executable, "-c", TWICE, when], check=False)
    assert done.returncode == code
