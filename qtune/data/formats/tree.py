"""Conversation trees (OASST): the best path from the first question to the last answer.

As QLoRA did, each tree gives one conversation. At every node the reply of the best rank is taken;
replies without a rank come after those with one, in the order of the file. Questions have no
ranks: the first one that got an answer is taken. A deleted message, one that its reviewers
refused or most of them called spam, is left out with all its replies. The path ends on an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.data.formats.base import Fields, Format
from qtune.data.readers.jsonl import json_kind
from qtune.data.row import Turn

if TYPE_CHECKING:
    from qtune.data.row import Example

ROLES = {"prompter": "user", "user": "user", "assistant": "assistant"}
_SPAM = 0.5


def _read(fields: Fields) -> tuple[Example, ...]:
    root = _checked(fields, fields.value("prompt"), "the first message ")
    turns: list[Turn] = []
    node: dict[str, Any] | None = root if _kept(root) else None
    while node is not None:
        turns.append(_turn(fields, node, len(turns) + 1))
        node = _best(fields, node, len(turns) + 1)
    while turns and turns[-1].role == "user":
        turns.pop()
    if not turns:
        raise fields.fault("prompt", "has no reply of the assistant, so there is nothing to learn")
    return (fields.example(*turns),)


def _turn(fields: Fields, node: dict[str, Any], depth: int) -> Turn:
    at = f"'role' at depth {depth} "
    said = fields.checked("prompt", node.get("role"), at=at)
    role = ROLES.get(said)
    if role is None:
        hint = f"roles are {', '.join(ROLES)}"
        raise fields.fault("prompt", f"has the unknown role {said!r} at depth {depth}", hint=hint)
    answers = role == "assistant"
    at = f"'text' at depth {depth} "
    text = fields.checked("prompt", node.get("text"), may_be_empty=not answers, at=at)
    return Turn(role, text, train=answers)


def _best(fields: Fields, node: dict[str, Any], depth: int) -> dict[str, Any] | None:
    """The reply that the path goes on with, None at its end."""
    kept = [reply for reply in _replies(fields, node, depth) if _kept(reply)]
    if not kept:
        return None
    answered = [r for r in kept if any(map(_kept, _replies(fields, r, depth + 1)))]
    asks = kept[0].get("role") != "assistant"
    return min(answered if asks and answered else kept, key=_rank)


def _replies(fields: Fields, node: dict[str, Any], depth: int) -> list[dict[str, Any]]:
    replies = node.get("replies")
    if replies is None:
        return []
    if not isinstance(replies, list):
        what = f"'replies' at depth {depth} is {json_kind(replies)}, a list is needed"
        raise fields.fault("prompt", what)
    return [_checked(fields, reply, f"a reply at depth {depth} ") for reply in replies]


def _checked(fields: Fields, node: Any, at: str) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise fields.fault("prompt", f"{at}is {json_kind(node)}, an object is needed")
    return node


def _rank(node: dict[str, Any]) -> float:
    rank = node.get("rank")
    return rank if isinstance(rank, int | float) else float("inf")


def _kept(node: dict[str, Any]) -> bool:
    labels = node.get("labels")
    spam = labels.get("spam") if isinstance(labels, dict) else None
    called = spam.get("value") if isinstance(spam, dict) else spam
    spammy = isinstance(called, int | float) and called > _SPAM
    return not (node.get("deleted") or node.get("review_result") is False or spammy)


TREE = Format(name="tree", required=("prompt",), layout="chat", read=_read)
