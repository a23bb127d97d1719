"""What an expression of a script is worth: literals, known names and arithmetic; nothing is run."""

from __future__ import annotations

import ast
import operator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Constants = dict[str, Any]
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_CASTS: dict[str, Callable[[Any], Any]] = {"int": int, "float": float}
_UNKNOWN = (ValueError, TypeError, ArithmeticError, MemoryError, RecursionError)
_LARGEST = 1e18  # powers of more are no setting, and take long


def constants(tree: ast.Module) -> Constants:
    """Names that are set to a known value at the top."""
    known: Constants = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        if len(targets) == 1 and isinstance(targets[0], ast.Name):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            value = plain(node.value, known)
            if value is not None or is_none(node.value, known):
                known[targets[0].id] = value
    return known


def is_none(node: ast.expr, known: Constants) -> bool:
    """Whether an expression is None, or the name of a constant that is."""
    named = isinstance(node, ast.Name) and node.id in known and known[node.id] is None
    return named or (isinstance(node, ast.Constant) and node.value is None)


def plain(node: ast.expr, known: Constants) -> Any:
    """The value of an expression as text, number, list or table; None where it is not known."""
    with suppress(*_UNKNOWN):
        return _literal(node)
    with suppress(*_UNKNOWN):
        return _computed(node, known)
    return None


def _literal(node: ast.expr) -> Any:
    value = ast.literal_eval(node)
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, str | int | float | bool | list | dict) else None


def _computed(node: ast.expr, known: Constants) -> Any:
    """Of a constant's name, torch.bfloat16, arithmetic, int() and float(), and lists of those."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch."):
        return node.attr
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(plain(node.operand, known))
    if isinstance(node, ast.BinOp):
        return _calculated(node, known)
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        cast = _CASTS.get(ast.unparse(node.func))
        value = plain(node.args[0], known)
        return cast(value) if cast and value is not None else None
    return _nested(node, known)


def _calculated(node: ast.BinOp, known: Constants) -> Any:
    calculate = _ARITHMETIC.get(type(node.op))
    left, right = (_number(plain(each, known)) for each in (node.left, node.right))
    if calculate is None or (
        isinstance(node.op, ast.Pow) and abs(float(left)) ** float(right) > _LARGEST
    ):
        return None
    return _number(calculate(left, right))


def _nested(node: ast.expr, known: Constants) -> Any:
    """A list or a table of which every value is known."""
    if isinstance(node, ast.List | ast.Tuple):
        values = [plain(each, known) for each in node.elts]
        return None if None in values else values
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        values = [plain(each, known) for each in node.values]
        names = [str(key.value) for key in node.keys if isinstance(key, ast.Constant)]
        return None if None in values else dict(zip(names, values, strict=True))
    return None


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no number")
    return value
