"""Load the image processor of a base model, which makes of each image what the model sees."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from qtune import hub
from qtune.artefacts import read_object
from qtune.errors import ModelError, UsageError
from qtune.models.files import SMALL, locate

if TYPE_CHECKING:
    from qtune.recipe.inputs import ModelSection

FILE = "preprocessor_config.json"


def load_image_processor(section: ModelSection) -> Any:
    """transformers' image processor of a model, the one on Pillow: the same pixels with torchvision
    and without it."""
    if find_spec("PIL") is None:
        raise UsageError("reading images takes Pillow", hint='pip install "qtune[vision]"')
    # transformers 5.17 hides it at the top where torchvision is absent
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    if section.offline:
        hub.go_offline()
    folder = locate(section.name_or_path, revision=section.revision, patterns=SMALL)
    if not (folder / FILE).is_file():
        raise ModelError(
            f"no {FILE}, which says how images are prepared",
            place=str(folder),
            hint="take it from the model that this one was made of",
        )
    read_object(folder / FILE)
    try:
        return AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"no usable image processor: {reason}", place=str(folder)) from error
