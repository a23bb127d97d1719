"""The path that is taken through a tree of messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.data.formats.reading import only, refuse


def said(role: str, text: Any, *replies: Any, **keys: Any) -> dict[str, Any]:
    return {"role": role, "text": text, "replies": list(replies), **keys}


def asks(text: Any, *replies: Any, **keys: Any) -> dict[str, Any]:
    return said("prompter", text, *replies, **keys)


def answers(text: Any, *replies: Any, **keys: Any) -> dict[str, Any]:
    return said("assistant", text, *replies, **keys)


def path(root: dict[str, Any]) -> list[str]:
    example = only("tree", {"prompt": root})
    assert all(turn.train == (turn.role == "assistant") for turn in example.turns)
    roles = [turn.role for turn in example.turns]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    return [turn.text for turn in example.turns]


def test_the_reply_of_the_best_rank_is_taken() -> None:
    tree = asks("q", answers("b", rank=1), answers("a", rank=0), answers("c", rank=None))
    assert path(tree) == ["q", "a"]


def test_without_ranks_it_is_the_first() -> None:
    assert path(asks("q", answers("a"), answers("b"))) == ["q", "a"]


def test_among_questions_the_first_that_got_an_answer() -> None:
    first = answers("a", asks("silent"), asks("more", answers("b")), asks("too", answers("c")))
    assert path(asks("q", first)) == ["q", "a", "more", "b"]


def test_the_path_ends_on_an_answer() -> None:
    assert path(asks("q", answers("a", asks("and?")))) == ["q", "a"]


@pytest.mark.parametrize(
    "mark",
    [{"deleted": True}, {"review_result": False}, {"labels": {"spam": {"value": 0.8, "count": 3}}}],
)
def test_what_was_deleted_or_refused_is_passed_over_with_its_replies(mark: dict[str, Any]) -> None:
    tree = asks("q", answers("bad", asks("x", answers("y")), rank=0, **mark), answers("a", rank=1))
    assert path(tree) == ["q", "a"]
    # the question that only a refused answer follows is no better than one without answer
    tree = asks("q", answers("a", asks("x", answers("bad", **mark)), asks("y", answers("b"))))
    assert path(tree) == ["q", "a", "y", "b"]


def test_little_spam_is_no_spam() -> None:
    spam = {"spam": {"value": 0.3, "count": 3}}
    assert path(asks("q", answers("a", labels=spam))) == ["q", "a"]


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (None, "prompt: the first message is null, an object is needed"),
        ("q", "prompt: the first message is text, an object is needed"),
        (asks("q"), "prompt: has no reply of the assistant, so there is nothing to learn"),
        (asks("q", answers("a"), deleted=True), "prompt: has no reply of the assistant"),
        (asks("q", answers("a", deleted=True)), "prompt: has no reply of the assistant"),
        (asks(None, answers("a")), "prompt: 'text' at depth 1 is null, text is needed"),
        (asks("q", answers("")), "prompt: 'text' at depth 2 is empty"),
        (asks("q", answers(3)), "prompt: 'text' at depth 2 is a number, text is needed"),
        (asks("q", said("bot", "a")), "prompt: has the unknown role 'bot' at depth 2"),
        (asks("q", 3), "prompt: a reply at depth 2 is a number, an object is needed"),
        (
            {"role": "prompter", "text": "q", "replies": {}},
            "prompt: 'replies' at depth 2 is an object, a list is needed",
        ),
    ],
)
def test_faulty_trees(root: Any, message: str) -> None:
    refuse("tree", {"prompt": root}, message)
