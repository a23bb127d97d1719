"""What turns the rows of a model into its inputs: its tokenizer, or its image processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune import models, plan
from qtune.data.pictures import Pictures
from qtune.errors import ModelError
from qtune.run.shapes import shape_of_model

if TYPE_CHECKING:
    from qtune.recipe.inputs import ModelSection

_SIZE = 64  # pixels of the image that is tried


def doing(reader: Any) -> str:
    """What making rows with a reader is called while it goes on."""
    return "checking images" if isinstance(reader, Pictures) else "tokenising"


def load_reader(section: ModelSection) -> Any:
    """The tokenizer of a model of text, `Pictures` of one of images; `ModelError` where it does not
    belong to the model."""
    config = plan.read_config(section.name_or_path, section.revision)
    if not plan.sees_images(config):
        return models.load_tokenizer(section)
    processor = models.load_image_processor(section)
    channels = int(config.get("num_channels", 3))
    made = _tried(Pictures(processor, 1, channels), section.name_or_path)
    shape = shape_of_model(section)
    sides = _pair(config.get("image_size", made))
    patch = _pair(config.get("patch_size", 1))
    if shape.family in plan.OF_FIXED_SIZE and made != sides:
        raise ModelError(
            f"its image processor makes {_text(made)} pixels, the model wants {_text(sides)}",
            place=section.name_or_path,
            hint="see size in preprocessor_config.json",
        )
    # others stretch their positions over an image of another size
    more = _patches(made, patch) - _patches(sides, patch)
    return Pictures(processor, shape.image_tokens + more, channels)


def _tried(pictures: Pictures, place: str) -> tuple[int, int]:
    """Height and width that the processor makes of an image."""
    from PIL import Image

    blank = Image.new("RGB" if pictures.channels == 3 else "L", (_SIZE, _SIZE + 1))
    try:
        channels, tall, wide = pictures.prepared(blank).shape
    except Exception as error:  # each processor fails on a faulty value in its own way
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"its image processor fails: {said}", place=place) from error
    if channels != pictures.channels:
        message = f"its image processor makes {channels} channels, the model wants "
        raise ModelError(f"{message}{pictures.channels}", place=place)
    return tall, wide


def _pair(value: Any) -> tuple[int, int]:
    one, other = value if isinstance(value, list | tuple) else (value, value)
    return int(one), int(other)


def _patches(sides: tuple[int, int], patch: tuple[int, int]) -> int:
    return (sides[0] // patch[0]) * (sides[1] // patch[1])


def _text(sides: tuple[int, int]) -> str:
    return f"{sides[0]} x {sides[1]}"
