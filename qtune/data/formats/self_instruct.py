"""Self-instruct rows: an instruction with several instances of it, each an example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.data.formats.base import Fields, Format
from qtune.data.readers.jsonl import json_kind
from qtune.data.row import Turn

if TYPE_CHECKING:
    from qtune.data.row import Example


def _read(fields: Fields) -> tuple[Example, ...]:
    instruction = Turn("instruction", fields.text("instruction", may_be_empty=False))
    instances = fields.filled_list("instances", of="instances")
    several = len(instances) > 1
    return tuple(
        fields.example(
            instruction,
            *_turns(fields, number, instance),
            part=f"instance {number}" if several else "",
        )
        for number, instance in enumerate(instances, 1)
    )


def _turns(fields: Fields, number: int, instance: Any) -> tuple[Turn, ...]:
    """The input of an instance, where it has one, and its output."""
    at = f"instance {number} "
    if not isinstance(instance, dict):
        kind = json_kind(instance)
        raise fields.fault("instances", f"{at}is {kind}, an object is needed")
    if "output" not in instance:
        raise fields.fault("instances", f"{at}has no 'output'")
    said = fields.checked("instances", instance["output"], may_be_empty=False, at=f"{at}'output' ")
    answer = Turn("assistant", said, train=True)
    given = instance.get("input")
    if given in (None, ""):
        return (answer,)
    return (Turn("input", fields.checked("instances", given, at=f"{at}'input' ")), answer)


SELF_INSTRUCT = Format(
    name="self-instruct",
    required=("instruction", "instances"),
    layout="instruction",
    read=_read,
)
