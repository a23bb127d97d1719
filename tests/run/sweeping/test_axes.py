"""`--over`: what it takes, and how combinations are called."""

from __future__ import annotations

import pytest

from qtune.errors import UsageError
from qtune.run.sweeping.axes import Span, label_of, read_axes, short_names


def test_values_are_those_of_a_recipe() -> None:
    texts = ["a.b=1e-4,2", "c.d=[x,y],all", "e.f=true,null,30m", "g.h='p,q',r"]
    axes = read_axes(texts)
    assert [axis.key for axis in axes] == ["a.b", "c.d", "e.f", "g.h"]
    values = [axis.values for axis in axes]
    assert values == [(1e-4, 2), (["x", "y"], "all"), (True, None, "30m"), ("p,q", "r")]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "nothing to vary"),
        (["lr"], "not of the form"),
        (["=1"], "not of the form"),
        (["lr="], "not of the form"),
        (["lr=1e-4,0.0001"], "a value comes twice"),
        (["lr=[1"], "not valid YAML"),
        (["lr=1", "lr=2"], "lr comes twice"),
        (["lr=1..x"], "not a range of numbers"),
        (["lr=1..2:sqrt"], "not a range of numbers"),
        (["lr=2..1"], "not a range"),
        (["lr=0..1:log"], "not a range"),
        (["lr=0..1:-1"], "not a range"),
    ],
)
def test_what_is_not_of_the_form_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_axes(texts)


def test_a_label_is_short_and_a_folder_name() -> None:
    assert (
        label_of({"optim.learning_rate": 1e-4, "method.rank": 8}) == "learning_rate=0.0001,rank=8"
    )
    assert short_names(["a.x", "b.x", "c.y"]) == {"a.x": "a.x", "b.x": "b.x", "c.y": "y"}
    slashed, blank = label_of({"m.n": "a/b"}), label_of({"m.n": "a b"})
    assert slashed.startswith("n=a-b-")
    assert slashed != blank
    assert len(label_of({"m.n": "x" * 999})) < 150
    assert "/" not in label_of({"m.n": ["../../etc"]})


def test_a_range_has_a_scale_or_a_step() -> None:
    texts = ["a=1e-5..1e-3:log", "b=8..64:8", "c=0..1", "d=0.1..0.5:0.1", "e=1..2,3", "f=-2..-1"]
    assert [axis.span for axis in read_axes(texts)] == [
        Span(1e-5, 1e-3, log=True),
        Span(8, 64, step=8),
        Span(0, 1),
        Span(0.1, 0.5, step=0.1),
        None,  # two values, of which a recipe refuses the first
        Span(-2, -1),
    ]
    whole = [axis.span.whole for axis in read_axes(texts) if axis.span]
    assert whole == [False, True, True, False, True]
