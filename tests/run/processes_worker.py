"""What each process of `test_processes.py` does: one run after another, all of them together."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from qtune.errors import QtuneError
from qtune.run.display import Quiet
from qtune.run.resume import Wanted
from qtune.run.train import train


def lacking(make: Any) -> Any:
    """What makes a loss, whose fifth pass finds no memory for two rows in the second process."""

    def made(*words: Any, **settings: Any) -> Any:
        loss, passes = make(*words, **settings), []

        def called(model: Any, batch: Any, **more: Any) -> Any:
            passes.append(batch)
            if len(passes) >= 5 and len(batch.input_ids) > 1 and os.environ["RANK"] == "1":
                raise MemoryError
            return loss(model, batch, **more)

        return called

    return made


def main(asked: str, told: str) -> None:
    """The ends of runs, each with its recipe, overrides, a port of its own, and keys that may
    differ; memory runs out in those that shrink."""
    found: list[tuple[int, object, object]] = []
    preparing = importlib.import_module("qtune.data.prepare")
    encode, encoded = preparing._encode, []

    def counting(*words: Any) -> Any:
        encoded.append(words)
        return encode(*words)

    preparing._encode = counting  # type: ignore[attr-defined]
    running = importlib.import_module("qtune.run.train")
    make = running.losses.make
    for recipe, overrides, port, changes in json.loads(asked):
        os.environ["MASTER_PORT"] = str(port)
        lacks = "memory.on_oom=shrink" in overrides
        running.losses.make = lacking(make) if lacks else make  # type: ignore[attr-defined]
        wanted = Wanted(required=bool(changes), changes=tuple(changes))
        try:
            report, code = train(recipe, overrides=overrides, wanted=wanted, display=Quiet())
            held_out, task = report["evaluations"][-1], report["tasks"]["adapter"]["task"]
            found.append((code, report["tokens"], [held_out["loss"], task["loss"]]))
        except QtuneError as error:
            found.append((int(error.code), str(error), None))
    Path(told).write_text(json.dumps({"runs": found, "encodings": len(encoded)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
