"""README.md of a model or an adapter: YAML for the hub, and what it is made of for people."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Measure:
    """A held-out figure, with its interval where one was computed."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    base: float | None = None
    """The same of the untouched base."""


@dataclass(frozen=True)
class Facts:
    """What a card tells; nothing in it is a path of this machine."""

    base: str
    base_on_hub: bool = False
    licence: str | None = None
    data: tuple[tuple[str, str, str], ...] = ()
    """(file, rows, sha256) of each; empty where unknown."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()
    rows: int | None = None
    """Held-out rows that the measures are of."""


def card(
    facts: Facts,
    *,
    name: str,
    library: str,
    relation: str,
    pipeline: str,
    opening: Sequence[str],
    use: Sequence[str],
    tags: Sequence[str] = (),
) -> str:
    """The text; `opening` are paragraphs and sections above the data, `use` is shown as it is."""
    lines = ["---", front_matter(facts, name, library, relation, pipeline, tags).rstrip(), "---"]
    lines += ["", f"# {name}", ""]
    for paragraph in opening:
        lines += [paragraph, ""]
    for title, body in (
        ("Measures", _measures(facts)),
        ("Data", _data(facts)),
        ("Recipe", _recipe(facts)),
        ("Licence", [_licence(facts)]),
        ("Use", use),
    ):
        if body:
            lines += [f"## {title}", "", *body, ""]
    return "\n".join(lines)


def front_matter(
    facts: Facts, name: str, library: str, relation: str, pipeline: str, tags: Sequence[str]
) -> str:
    """The YAML block without its marks; what is not known is left out."""
    block: dict[str, Any] = {"library_name": library, "pipeline_tag": pipeline}
    if facts.base_on_hub:
        block |= {"base_model": facts.base, "base_model_relation": relation}
    if facts.licence:
        block["license"] = facts.licence
    block["tags"] = ["qtune", "qlora", *tags]
    if facts.measures:
        block["model-index"] = [_index(facts, name, pipeline)]
    return yaml.safe_dump(block, sort_keys=False, allow_unicode=True)


def _index(facts: Facts, name: str, pipeline: str) -> dict[str, Any]:
    """The hub's own form of measures."""
    metrics = [
        {"type": measure.name, "value": measure.value, "name": measure.name.replace("_", " ")}
        for measure in facts.measures
    ]
    told = facts.data[-1][0].partition(": ")[2] if facts.data else ""
    result = {
        "task": {"type": pipeline},
        "dataset": {
            "name": f"held-out rows of {told}" if told else "held-out rows",
            "type": "local",
        },
        "metrics": metrics,
    }
    return {"name": name, "results": [result]}


def _measures(facts: Facts) -> list[str]:
    if not facts.measures:
        return []
    of = f"On {facts.rows:,} held-out rows" if facts.rows else "On the held-out rows"
    bounded = any(one.low is not None for one in facts.measures)
    lines = [f"{of}; intervals are of 95 %, by bootstrap over rows." if bounded else f"{of}.", ""]
    lines += ["| measure | value | interval | base |", "|---|---|---|---|"]
    for one in facts.measures:
        interval = "" if one.low is None else f"{one.low:.4g} to {one.high:.4g}"
        base = "" if one.base is None else f"{one.base:.4g}"
        lines.append(f"| {one.name.replace('_', ' ')} | {one.value:.4g} | {interval} | {base} |")
    return lines


def _data(facts: Facts) -> list[str]:
    if not facts.data:
        return []
    lines = ["| file | rows | sha256 |", "|---|---|---|"]
    return [*lines, *(f"| {_cell(file)} | {rows} | {hash_} |" for file, rows, hash_ in facts.data)]


def _recipe(facts: Facts) -> list[str]:
    if not facts.recipe:
        return []
    rows = [f"| {key} | {_cell(value)} |" for key, value in facts.recipe.items()]
    return ["| key | value |", "|---|---|", *rows]


def _licence(facts: Facts) -> str:
    if facts.licence:
        return f"The base's licence applies: {facts.licence}."
    return f"The licence of {facts.base} applies; it is not stated beside its weights."


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")
