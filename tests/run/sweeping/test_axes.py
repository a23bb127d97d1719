"""`--over`: what it takes, and how combinations are called."""

from __future__ import annotations

import pytest

from qtune.errors import UsageError
from qtune.run.sweeping.axes import label_of, read_axes, short_names


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
