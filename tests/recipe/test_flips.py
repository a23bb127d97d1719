"""Every key of the schema: it has a meaning in words, and setting it changes the recipe."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest

from qtune.errors import UsageError
from qtune.recipe import load
from qtune.recipe.keys import METHODS, SECTIONS, item_kind, section_kinds
from qtune.recipe.section import Section
from qtune.recipe.sections import Recipe

HELD_OUT = {"data": {"val_size": 0.1}}
CONTEXT: dict[str, dict[str, dict[str, Any]]] = {
    "eval": HELD_OUT,
    "eval.max_new_tokens": {**HELD_OUT, "eval": {"generate_rows": 1}},
    "eval.measures": {**HELD_OUT, "eval": {"generate_rows": 1}},
    "eval.cache": {**HELD_OUT, "eval": {"generate_rows": 1}},
    "checkpoint": {**HELD_OUT, "eval": {"generate_rows": 1}},
    "gates": {**HELD_OUT, "eval": {"generate_rows": 1}},
    "gates.min_accuracy": {**HELD_OUT, "model": {"task": "classification"}},
    "gates.min_macro_f1": {**HELD_OUT, "model": {"task": "classification"}},
    "model.labels": {"model": {"task": "classification"}},
    "loss.teacher_bits": {"loss": {"teacher": "other/model"}},
    "loss.temperature": {"loss": {"teacher": "base"}},
    "loss.soft_share": {"loss": {"teacher": "base"}},
    "loss.divergence": {"loss": {"teacher": "base"}},
    "data.split_by": HELD_OUT,
    "data.share_prefixes": {"data": {"packing": True}},
    "data.streaming": {"train": {"max_steps": 3}},
    "data.shuffle_buffer": {"train": {"max_steps": 3}, "data": {"streaming": True}},
    "data.train.weight": {"data": {"mix": "weighted"}},
    "method.form": {"quantization": {"bits": 16}},
    "method.intrinsic_rank": {"method": {"form": "taylor"}},
    "optim.min_lr_ratio": {"optim": {"lr_scheduler_type": "cosine"}},
}
"""What a key needs beside it to be read."""

HUB_KEYS = ("config", "split", "revision")
CONTEXT |= {f"data.train.{key}": {"data": {"train": [{"path": "hub/rows"}]}} for key in HUB_KEYS}

REFUSED = {"data.eval.weight", "gates.min_measures", "gates.min_measure_gains"}
"""What the shape of a section allows and a rule refuses."""

VALUES: dict[Any, tuple[Any, ...]] = {
    bool: (True, False),
    int: (3, 5),
    float: (0.25, 0.75, 3.0),
    str: ("other", "20GB", "30m", "chatml"),
}


def all_keys() -> list[Any]:
    keys = []
    for section in SECTIONS:
        for kind in section_kinds(section):
            for key, field in kind.model_fields.items():
                inner = item_kind(field)
                names = [key, *(f"{key}.{name}" for name in (inner.model_fields if inner else ()))]
                names = [name for name in names if f"{section}.{name}" not in REFUSED]
                keys += [pytest.param(section, kind, n, id=f"{kind.__name__}.{n}") for n in names]
    return keys


def candidates(annotation: Any) -> Iterator[Any]:
    """Values of a type, without knowing its range."""
    kind, arguments = get_origin(annotation), get_args(annotation)
    if annotation in VALUES:
        yield from VALUES[annotation]
    elif kind is Literal:
        yield from arguments
    elif kind is tuple:
        items = candidates(arguments[0])
        yield from ([item] * (1 if Ellipsis in arguments else len(arguments)) for item in items)
    elif kind is dict:
        yield from ({"k": value} for value in candidates(arguments[1]))
    elif arguments:
        for part in arguments[:1] if kind is Annotated else arguments:
            yield from candidates(part)
    elif annotation in METHODS.values():
        yield {"name": annotation.model_fields["name"].default}
    elif isinstance(annotation, type) and issubclass(annotation, Section):
        yield {"path": "other"}


def load_with(section: str, settings: dict[str, Any], context: str) -> Recipe:
    plain: dict[str, dict[str, Any]] = {
        "model": {"name_or_path": "m"},
        "data": {"train": [{"path": "t.csv"}]},
    }
    for part in (CONTEXT.get(context, CONTEXT.get(section, {})), {section: settings}):
        for name, keys in part.items():
            plain[name] = {**plain.get(name, {}), **keys}
    Path("recipe.yaml").write_text(json.dumps(plain))  # JSON is YAML
    return load("recipe.yaml").recipe


@pytest.mark.parametrize(("section", "kind", "key"), all_keys())
def test_flipping_a_key_changes_the_recipe(section: str, kind: type[Section], key: str) -> None:
    outer, _, inner = key.partition(".")
    method = {"name": kind.model_fields["name"].default} if section == "method" else {}
    item = item_kind(kind.model_fields[outer])
    fields = item.model_fields if item is not None and inner else kind.model_fields
    found = []
    for value in candidates(fields[inner or outer].annotation):
        path = "hub/rows" if inner in HUB_KEYS else "t.csv"
        flipped = [{"path": path, inner: value}] if inner else value
        with contextlib.suppress(UsageError):  # out of its range
            found.append(load_with(section, {**method, outer: flipped}, f"{section}.{key}"))
    if (section, key) == ("method", "name"):
        found.append(load_with("method", {"name": _other_method(kind)}, ""))
    assert any(recipe != found[0] for recipe in found[1:]) or found[0] != load_with(
        section, method, f"{section}.{key}"
    )


def _other_method(kind: type[Section]) -> str:
    return next(name for name, other in METHODS.items() if other is not kind)


def test_every_key_has_a_meaning() -> None:
    for section in SECTIONS:
        for kind in section_kinds(section):
            assert kind.__doc__
            fields = dict(kind.model_fields)
            for key, field in kind.model_fields.items():
                inner = item_kind(field)
                fields |= {
                    f"{key}.{n}": f for n, f in (inner.model_fields if inner else {}).items()
                }
            undescribed = {key for key, field in fields.items() if not field.description}
            assert undescribed == ({"name"} if section == "method" else set())
