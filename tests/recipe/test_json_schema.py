from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from qtune.recipe import schema
from qtune.recipe.keys import METHODS, SECTIONS
from qtune.recipe.shipped import fragments


def test_it_is_a_schema_an_editor_takes() -> None:
    document = json.loads(json.dumps(schema(), allow_nan=False))
    assert document["$schema"].startswith("https://json-schema.org/")
    assert document["title"] == "qtune recipe"
    assert document["additionalProperties"] is False
    assert list(document["properties"]) == ["extends", *SECTIONS]
    assert fragments()[0] in json.dumps(document["properties"]["extends"])
    assert document["anyOf"] == [{"required": ["extends"]}, {"required": ["model", "data"]}]


def test_every_reference_leads_somewhere() -> None:
    document = schema()
    for reference in references(document):
        assert reference.removeprefix("#/$defs/") in document["$defs"]


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_key_says_what_it_means_and_no_other_is_allowed() -> None:
    for name, section in schema()["$defs"].items():
        assert section["additionalProperties"] is False, name
        for key, entry in section["properties"].items():
            assert "description" in entry or key == "name", (name, key)
    assert len(schema()["$defs"]) == len(SECTIONS) + len(METHODS)
