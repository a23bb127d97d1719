"""Loading a model's image processor; what is wrong is told in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qtune.errors import ModelError, UsageError
from qtune.models import image_processor, load_image_processor
from qtune.recipe.inputs import ModelSection
from tests.tiny_vision import SIDE, save_tiny_vit

if TYPE_CHECKING:
    from pathlib import Path


def test_the_processor_is_the_models_own_on_pillow(tmp_path: Path) -> None:
    found = load_image_processor(ModelSection(name_or_path=str(save_tiny_vit(tmp_path))))
    assert (found.size["height"], found.size["width"]) == (SIDE, SIDE)
    assert type(found).__name__ == "ViTImageProcessorPil"


def test_a_missing_library_is_told_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_processor, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="takes Pillow") as found:
        load_image_processor(ModelSection(name_or_path=str(tmp_path)))
    assert found.value.faults[0].hint == 'pip install "qtune[vision]"'


def test_a_file_of_no_use(tmp_path: Path) -> None:
    save_tiny_vit(tmp_path)
    section = ModelSection(name_or_path=str(tmp_path))
    (tmp_path / image_processor.FILE).write_text('{"image_processor_type": "Other"}')
    with pytest.raises(ModelError):
        load_image_processor(section)
    (tmp_path / image_processor.FILE).write_text("{")
    with pytest.raises(ModelError):
        load_image_processor(section)
