"""Children of a comparison: what they tell, and that a signal reaches them."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from qtune.run.comparison import children
from qtune.run.comparison.children import Outcome
from qtune.run.display import Quiet


def test_a_child_tells_its_object_and_its_steps(tmp_path: Path) -> None:
    done = children.qtune(["methods"], what="x", log=tmp_path / "log", display=Quiet())
    assert done.code == 0
    assert done.told["methods"]
    failed = children.qtune(["train"], what="x", log=tmp_path / "log", display=Quiet())
    assert failed.code == 2
    assert "Missing argument" in failed.fault.message
    assert "Missing argument" in (tmp_path / "log").read_text()
    assert Outcome(-9, {}).fault.message == "killed by signal 9"


def test_a_signal_is_passed_on_once_and_waited_for(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "def end(*_):\n    sys.stderr.write('saved\\n'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end); sys.stderr.write('step 1/2 \\n'); sys.stderr.flush()\n"
        "time.sleep(30)"
    )
    log = tmp_path / "log"
    started = []

    def interrupt(_: children.Child) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt), children.Crew() as crew:
        started = [crew.start([sys.executable, "-c", script], log) for _ in range(2)]
        crew.next_ended(interrupt)
    assert {child.process.returncode for child in started} <= {143, -15}  # -15: not begun yet
    assert started[0].process.returncode == 143 or started[1].process.returncode == 143
    assert "saved" in log.read_text()
