"""YAML text to nodes: lines kept, YAML 1.2 scalars; tags and duplicate keys are refused."""

from __future__ import annotations

from typing import Any

import yaml

from qtune.errors import Fault, UsageError
from qtune.recipe.node import Node, Source
from qtune.recipe.scalars import scalar

MOST_VALUES = 20_000
DEEPEST = 50


class _Composer(yaml.SafeLoader):
    """PyYAML's composer; scalars get their meaning from `scalar`, so it resolves no tags."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    composed = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.composed += 1
        if self.composed > MOST_VALUES:
            raise yaml.MarkedYAMLError(
                problem=f"more than {MOST_VALUES} values", problem_mark=event.start_mark
            )
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"the tag {_short_tag(event.tag)} is not allowed",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


def parse(text: str, source: Source) -> Node:
    """The one document of `text`; `UsageError` with a line for what is not plain YAML."""
    root = _compose(text, source)
    if root is None:
        return Node(None, source, 1)
    tree = _Tree(source)
    node = tree.convert(root, line=root.start_mark.line + 1, depth=0)
    if tree.faults:
        raise UsageError.of(tree.faults)
    return node


def _compose(text: str, source: Source) -> yaml.Node | None:
    try:
        loader = _Composer(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(
            f"the control character U+{ord(text[error.position]):04X} is not allowed",
            place=_place(source, line),
            hint="remove it",
        ) from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, source) from None
    except RecursionError:
        raise _too_deep(source) from None


class _Tree:
    """Turns PyYAML's nodes into ours, counting: references may not blow a small file up."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.faults: list[Fault] = []
        self._count = 0

    def convert(self, node: yaml.Node, *, line: int, depth: int) -> Node:
        """Our node for PyYAML's."""
        self._count += 1
        if self._count > MOST_VALUES:
            raise UsageError(
                f"its references unfold to more than {MOST_VALUES} values", place=self.source.name
            )
        if depth > DEEPEST:
            raise _too_deep(self.source)
        if isinstance(node, yaml.MappingNode):
            return Node(self._table(node, depth), self.source, line)
        if isinstance(node, yaml.SequenceNode):
            items = [
                self.convert(item, line=item.start_mark.line + 1, depth=depth + 1)
                for item in node.value
            ]
            return Node(items, self.source, line)
        quoted = isinstance(node, yaml.ScalarNode) and node.style is not None
        return Node(node.value if quoted else scalar(node.value), self.source, line)

    def _table(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        table: dict[str, Node] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if not name or name == "<<":
                self._refuse_key(name, line)
            elif name in table:
                self._fault(line, f"{name}: set twice, first in line {table[name].line}")
            else:
                table[name] = self.convert(value, line=line, depth=depth + 1)
        return table

    def _refuse_key(self, name: str | None, line: int) -> None:
        if name == "<<":
            self._fault(line, "merge keys (<<) are not supported", "use extends:")
        else:
            self._fault(line, "a key must be a name")

    def _fault(self, line: int, message: str, hint: str = "") -> None:
        self.faults.append(Fault(message=message, place=_place(self.source, line), hint=hint))


def _place(source: Source, line: int) -> str:
    return f"{source.name}:{line}" if source.kind == "file" else source.name


def _short_tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _too_deep(source: Source) -> UsageError:
    return UsageError(f"nested deeper than {DEEPEST} levels", place=source.name)


def _syntax_error(error: yaml.MarkedYAMLError, source: Source) -> UsageError:
    mark = error.problem_mark or error.context_mark
    place = _place(source, mark.line + 1) if mark else source.name
    problem = str(error.problem or error.context)
    if problem.startswith("but found another document"):
        return UsageError("a second document (---): a recipe is one", place=place)
    if "'\\t'" in problem:
        return UsageError("a tab where YAML wants spaces", place=place, hint="indent with spaces")
    if problem.startswith("more than"):
        return UsageError(f"{problem}: this is no recipe", place=place)
    if problem.startswith("the tag"):
        return UsageError(problem, place=place, hint="a recipe holds plain values only")
    return UsageError(f"not valid YAML: {problem}", place=place, hint=_syntax_hint(problem))


def _syntax_hint(problem: str) -> str:
    hints = {
        "mapping values are not allowed": "a value with ': ' in it needs quotes",
        "could not find expected ':'": "a key needs ': ' and a value",
        "expected <block end>": "check the indentation of this line",
        "cannot start any token": "quote the value",
        "undefined alias": "quote a value that starts with *",
        "expected alphabetic or numeric character": "quote the value",
    }
    return next((hint for part, hint in hints.items() if part in problem), "")
