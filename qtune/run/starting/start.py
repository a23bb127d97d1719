"""From answers to a recipe that fits: settings, plan, and what makes it fit where it does not."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError
from qtune.plan import human
from qtune.recipe.inputs import ModelSection
from qtune.run.importing import refuse_existing, write_new
from qtune.run.plan import card_of, plan, suggest
from qtune.run.shapes import shape_and_note
from qtune.run.starting.looking import Look, look
from qtune.run.starting.settings import Settings, apply, first_settings, text_of

if TYPE_CHECKING:
    from qtune.plan import ModelShape
    from qtune.run.plan import Planned

_TWO = ("no", "yes")
"""Labels that stand in for those of the rows, which are not read yet."""
_ROUNDS = 3
"""Suggestions taken one after the other."""


@dataclass(frozen=True)
class Answers:
    """What a person wants; `gpu` None: this machine."""

    model: str
    data: str
    gpu: str | None = None
    output: Path = Path("recipe.yaml")


@dataclass(frozen=True)
class Started:
    """A recipe that was written, the plan it was made with, and what was changed to fit."""

    output: Path
    text: str
    planned: Planned
    seen: Look
    changes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        made = self.planned.plan
        return {
            "output": str(self.output),
            "format": self.seen.format,
            "rows": self.seen.rows,
            "changed_to_fit": list(self.changes),
            "fits": made.fits,
            "device_bytes": made.device_bytes,
            "budget_bytes": made.budget_bytes,
            "seconds_per_step": made.seconds_per_step,
            "yaml": self.text,
        }


def known_model(name: str) -> ModelShape:
    """The shape of a model, an encoder's for its labels; `ModelError` for what cannot be had."""
    try:
        return shape_and_note(ModelSection(name_or_path=name))[0]
    except ModelError as error:
        if "encoder" not in str(error):
            raise
        own = ModelSection(name_or_path=name, task="classification", labels=_TWO)
        return shape_and_note(own)[0]


def start(answers: Answers) -> Started:
    """Plan and write a recipe; `ResourceError` with what would fit where nothing does.

    Raises `OutputError` for a file that exists, before anything is looked at.
    """
    refuse_existing(answers.output)
    if answers.gpu is not None:
        card_of(answers.gpu)
    shape = known_model(answers.model)
    seen = look(answers.data, task="classification" if shape.encoder else "causal")
    settings = first_settings(answers.model, shape, seen)
    planned, changes = _fitted(settings, answers.gpu)
    text = text_of(settings, _head(answers, planned), folder=answers.output.parent)
    write_new(answers.output, text)
    return Started(answers.output, text, planned, seen, changes)


def _fitted(settings: Settings, gpu: str | None) -> tuple[Planned, tuple[str, ...]]:
    """The plan that fits, the settings changed for it; `ResourceError` if none does."""
    changes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        for _ in range(_ROUNDS):
            path.write_text(text_of(settings, []))
            planned = plan(path, gpu=gpu)
            if planned.plan.fits:
                break
            found = suggest(path, planned, gpu=gpu)
            if found is None:
                break
            changes += found.settings
            apply(settings, found.settings, "so that it fits")
    planned.plan.check()
    return planned, tuple(changes)


def _head(answers: Answers, planned: Planned) -> list[str]:
    made = planned.plan
    output = answers.output
    return [
        f"QLoRA, planned for {made.machine.name}: {human(made.device_bytes)} of "
        f"{human(made.budget_bytes)}.",
        f"  qtune plan {output}            what it will do with the memory",
        f"  qtune data preview {output}    what is learnt of each row",
        f"  qtune train {output}",
        "Every key that is not here has its default: qtune show lists them, qtune schema explains.",
    ]
