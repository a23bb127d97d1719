"""A recipe file and the fragments it extends, as one layer."""

from __future__ import annotations

import os
from pathlib import Path

from qtune.errors import Fault, UsageError
from qtune.recipe import shipped
from qtune.recipe.files import exists, expand, read_text
from qtune.recipe.keys import SECTIONS
from qtune.recipe.layers import Layer, beside, overlay, read_layer
from qtune.recipe.node import Node, Source
from qtune.recipe.recognise import top_level
from qtune.recipe.syntax import parse
from qtune.registry import nearest


def read_file(path: Path, *, name: str, faults: list[Fault]) -> Layer:
    """What a recipe file sets, over what its fragments set."""
    source = Source(name=name, label=path.name, folder=path.resolve().parent)
    return _read(path, source, faults, chain=(path.resolve(),))


def _read(path: Path, source: Source, faults: list[Fault], *, chain: tuple[Path, ...]) -> Layer:
    root = parse(read_text(path, name=source.name), source)
    own = read_layer(top_level(root), faults)
    named = [_fragment(node, faults, chain=chain) for node in _names(own.extends, faults)]
    below = [fragment for fragment in named if fragment is not None]
    if len(below) < len(named):
        own.blamed.update(SECTIONS)  # what is missing may stand in the fragment that failed
    return overlay(beside(below, own, faults), own)


def _names(extends: Node | None, faults: list[Fault]) -> list[Node]:
    if extends is None or extends.value is None:
        return []
    nodes = extends.value if isinstance(extends.value, list) else [extends]
    for node in nodes:
        if not isinstance(node.value, str):
            message = "extends: not a fragment's name or a list of them"
            faults.append(Fault(message=message, place=node.place, hint=_shipped_hint("")))
            return []
    return nodes


def _fragment(node: Node, faults: list[Fault], *, chain: tuple[Path, ...]) -> Layer | None:
    """One fragment's layer; a fault with the place of `extends` if it is not there."""
    text = str(node.value)
    path, source = _locate(text, node)
    if path.resolve() in chain:
        circle = " -> ".join(step.name for step in (*chain, path))
        faults.append(Fault(message=f"extends: goes in a circle: {circle}", place=node.place))
        return None
    if not exists(path):
        hint = _missing_hint(text, node)
        faults.append(Fault(message=f"extends: no fragment {text}", place=node.place, hint=hint))
        return None
    try:
        layer = _read(path, source, faults, chain=(*chain, path.resolve()))
    except UsageError as error:
        faults.extend(error.faults)
        return None
    if source.label.startswith("configs/"):
        _keep_to_its_sections(text, layer, faults)
    return layer


def _locate(text: str, node: Node) -> tuple[Path, Source]:
    """A file relative to the one that names it, or a shipped fragment."""
    if text.startswith(("./", "../", "/", "~")):
        path = node.source.folder / expand(text)
        name = os.path.normpath(Path(node.source.name).parent / expand(text))
        return path, Source(name=name, label=path.name, folder=path.resolve().parent)
    path = shipped.folder("configs") / f"{text}.yaml"
    return path, Source(
        name=f"configs/{text}.yaml", label=f"configs/{text}.yaml", folder=path.parent
    )


def _missing_hint(text: str, node: Node) -> str:
    if text.startswith(("./", "../", "/", "~")):
        return f"looked in {node.source.folder}"
    if exists(node.source.folder / text):
        return f"a file of yours is written ./{text}"
    return _shipped_hint(text)


def _shipped_hint(text: str) -> str:
    return nearest(text, shipped.fragments())


def _keep_to_its_sections(name: str, layer: Layer, faults: list[Fault]) -> None:
    kind = name.partition("/")[0]
    allowed = shipped.FRAGMENT_SECTIONS.get(kind, frozenset())
    only = f"a fragment of {kind}/ sets {', '.join(sorted(allowed))} only"
    faults.extend(
        Fault(message=f"{section}: {only}", place=f"configs/{name}.yaml")
        for section in layer.settings.keys() - allowed
    )
