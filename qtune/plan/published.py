"""The published sizes of well-known models, so that a plan needs neither download nor network.

configs/shapes.json holds the values of each config.json that a shape follows from: facts alone.
"""

from __future__ import annotations

import json
from typing import Any

from qtune.recipe import shipped


def published_config(repository: str) -> dict[str, Any] | None:
    """The sizes of a hub id's config.json, None where they are not shipped."""
    path = shipped.folder("configs") / "shapes.json"
    known: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return known.get(repository)
