"""Signals ask for an end; they do not make one."""

from __future__ import annotations

import signal

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
