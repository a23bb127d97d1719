"""A stand-in for `qtune train`, quick to start: it tells what it saw and leaves a finished run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from qtune.run.comparison import children

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path

events, codes, together = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
file, run = Path(sys.argv[5]), Path(sys.argv[7])
name = f"{file.parent.name}/{run.name}"


def tell(what):
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "-")
    with events.open("a") as stream:
        stream.write(f"{what} {name} {device} {os.getpid()}\\n")


def stop(number, frame):
    tell("saved")
    sys.exit(128 + number)


signal.signal(signal.SIGTERM, stop)
tell("begins")
sys.stderr.write("step 1/2  loss 1\\n")
sys.stderr.flush()
end = time.monotonic() + 60
while events.read_text().count("begins") < together and time.monotonic() < end:
    time.sleep(0.01)
code = codes.get(name, codes.get("*", 0))
if code == "wait":
    time.sleep(120)
if code:
    fault = {"message": "no", "place": "key", "hint": "do"}
    print(json.dumps({"error": {"faults": [fault]}}))
    sys.exit(code)
(run / "adapter").mkdir(parents=True)
(run / "adapter" / "adapter_config.json").write_text("{}")
for each in ("recipe.yaml", "plan.json"):
    (run / each).write_text("{}")
rank = int(file.parent.name.partition("rank=")[2].partition(",")[0])
report = {
    "steps": 1, "tokens": 10, "tokens_per_second": 5.0, "adapter_step": 1, "training_seconds": 2.0,
    "evaluations": [
        {"step": 0, "loss": 9.0, "exact_match": 0.0},
        {"step": 1, "loss": abs(rank - 8) + 1.0, "exact_match": rank / 100},
    ],
    "memory": {"measured_peak_bytes": 7, "predicted_bytes": 6},
}
(run / "report.json").write_text(json.dumps(report))
tell("ends")
print("{}")
"""


class Pretence:
    """What the stand-in is told and what it tells."""

    def __init__(self, folder: Path) -> None:
        self.events = folder / "events"
        self.script = folder / "train.py"
        self.script.write_text(SCRIPT)

    def command(self, codes: dict[str, object], *, together: int = 0) -> tuple[str, ...]:
        """Instead of `python -m qtune`: runs end with their code, or wait for a signal; none ends
        before so many have begun."""
        self.events.write_text("")
        told = (str(self.events), json.dumps(codes), str(together))
        return (sys.executable, str(self.script), *told)

    def begin(
        self, patch: pytest.MonkeyPatch, codes: dict[str, object] | None = None, together: int = 0
    ) -> None:
        """From now on runs are pretended in this process's children."""
        patch.setattr(children, "QTUNE", self.command(codes or {}, together=together))

    def lines(self) -> list[list[str]]:
        """What happened: (begins, saved or ends), run, device, process."""
        return [line.split() for line in self.events.read_text().splitlines()]

    def told(self, what: str) -> list[str]:
        """The runs of which this was told, in order."""
        return [line[1] for line in self.lines() if line[0] == what]
