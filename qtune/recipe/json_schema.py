"""The JSON Schema of a recipe, for editors and as the key reference."""

from __future__ import annotations

from typing import Any

from qtune.recipe import shipped
from qtune.recipe.sections import Recipe


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe file; what a fragment may give is not required."""
    document = Recipe.model_json_schema()
    properties = {"extends": _extends(), **document["properties"]}
    several = document["$defs"]["CombinationConfig"]["properties"]["parts"]
    properties["method"] = {"anyOf": [properties["method"], {"type": "array", **_items(several)}]}
    for section in ("ModelSection", "DataSection"):
        document["$defs"][section].pop("required", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "qtune recipe",
        "description": document["description"],
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "anyOf": [{"required": ["extends"]}, {"required": ["model", "data"]}],
        "$defs": document["$defs"],
    }


def _items(several: dict[str, Any]) -> dict[str, Any]:
    """What a list of methods holds: tables, or names alone."""
    return {"items": {"anyOf": [several["items"], {"type": "string"}]}, "minItems": 1}


def _extends() -> dict[str, Any]:
    name = {"anyOf": [{"enum": shipped.fragments()}, {"type": "string", "pattern": r"^[./~]"}]}
    return {
        "title": "Extends",
        "description": "Fragments that come first: shipped ones by name, your own as ./name.yaml.",
        "anyOf": [name, {"type": "array", "items": name}],
    }
