from __future__ import annotations

import pytest

from qtune.recipe import load, shipped
from qtune.recipe.extends import read_file


def test_there_are_recipes_and_fragments() -> None:
    assert {"llama-8b-24gb", "guanaco-65b-48gb", "bitfit", "prompt"} <= set(shipped.recipes())
    assert {"model/llama-65b", "hardware/gpu-48gb", "method/qlora"} <= set(shipped.fragments())


@pytest.mark.parametrize("name", shipped.recipes())
def test_every_recipe_is_valid_and_says_what_it_does_and_needs(name: str) -> None:
    loaded = load(name)
    header = loaded.path.read_text().split("\n\n")[0]
    assert header.startswith("# ")
    assert len(header.splitlines()) >= 2


@pytest.mark.parametrize("name", shipped.fragments())
def test_every_fragment_keeps_to_its_sections(name: str) -> None:
    kind = name.partition("/")[0]
    path = shipped.folder("configs") / f"{name}.yaml"
    faults: list[object] = []
    layer = read_file(path, name=name, faults=faults)  # type: ignore[arg-type]
    assert not faults
    assert layer.settings.keys() <= shipped.FRAGMENT_SECTIONS[kind]
    assert path.read_text().startswith("# ")


def test_kinds_of_fragments_never_clash() -> None:
    sections = [s for allowed in shipped.FRAGMENT_SECTIONS.values() for s in allowed]
    assert len(sections) == len(set(sections))


def test_a_fragment_that_leaves_its_sections_is_refused(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    folder = tmp_path / "configs" / "hardware"
    folder.mkdir(parents=True)
    (folder / "bad.yaml").write_text("optim: {eps: 1e-6}\n")
    (tmp_path / "r.yaml").write_text(
        "extends: hardware/bad\nmodel: m\ndata: {train: [{path: x}]}\n"
    )
    monkeypatch.setattr(shipped, "folder", lambda kind: tmp_path / kind)
    from qtune.errors import UsageError

    with pytest.raises(UsageError, match="optim: a fragment of hardware/ sets memory only"):
        load(tmp_path / "r.yaml")


def test_guanaco_65b_is_as_published() -> None:
    recipe = load("guanaco-65b-48gb").recipe
    method = recipe.method
    assert method.name == "lora"
    assert (method.rank, method.alpha, method.dropout) == (64, 16.0, 0.05)
    assert (recipe.quantization.bits, recipe.quantization.quant_type) == (4, "nf4")
    assert (recipe.optim.learning_rate, recipe.train.batch_size) == (1e-4, 16)
    assert (recipe.optim.max_grad_norm, recipe.train.max_steps) == (0.3, 1875)
