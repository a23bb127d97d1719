"""Images as a model sees them: files that are checked once, and decoded again for each step.

B images, C channels, H x W pixels. What a file holds is known by a hash, so that a changed one is
told instead of learnt.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qtune.errors import DataError
from qtune.plan.cores import cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from qtune.data.rows import EncodedRow

_HASH = 16  # bytes
NUMBERS = _HASH // 4
"""How many numbers of a row tell its image."""
_MOST_THREADS = 8
_COLOURS = ("RGB", "L", "1", "CMYK", "YCbCr")
_GREY = ("L", "1")


@dataclass(frozen=True)
class Pictures:
    """How image files become what a model sees; `processor` is transformers' own of the model."""

    processor: Any
    tokens: int
    """Of each image."""
    channels: int

    def identity(self, path: Path, *, place: str) -> list[int]:
        """The hash of a file as int32 numbers; `DataError` when it is no image for this model."""
        content = _bytes(path, place)
        decoded(content, self.channels, place=place)
        return _hashed(content)

    def pixels(self, rows: Sequence[EncodedRow]) -> torch.Tensor:
        """fp32 [B, C, H, W] of some rows; `DataError` when a file is not what was checked."""
        import torch

        threads = min(_MOST_THREADS, len(rows), cores())
        if threads < 2:
            return torch.stack([self._of(row) for row in rows])
        with ThreadPoolExecutor(threads) as pool:  # Pillow decodes without the interpreter's lock
            return torch.stack(list(pool.map(self._of, rows)))

    def prepared(self, image: Any) -> torch.Tensor:
        """fp32 [C, H, W] of a Pillow image."""
        made = self.processor(images=image, return_tensors="pt")["pixel_values"]
        pixels: torch.Tensor = made[0].float()
        return pixels

    def noise(self, number: int) -> list[torch.Tensor]:
        """Seeded random images [C, H, W] as the model sees them, for when data are gone."""
        from PIL import Image

        draw = np.random.default_rng(0)
        size = (64, 64, 3) if self.channels == 3 else (64, 64)
        made = [draw.integers(0, 256, size, dtype=np.uint8) for _ in range(number)]
        return [self.prepared(Image.fromarray(one)) for one in made]

    def told(self, row: EncodedRow) -> str:
        """A row's image in words: its name, its size and its mode."""
        from PIL import Image

        path = _file(row)
        with Image.open(BytesIO(_bytes(path, row.place))) as image:
            return f"{path.parent.name}/{path.name}, {image.width} x {image.height} {image.mode}"

    def _of(self, row: EncodedRow) -> torch.Tensor:
        content = _bytes(_file(row), row.place)
        if _hashed(content) != row.input_ids[:NUMBERS]:
            raise DataError(
                "the image is not what was checked: its file has changed",
                place=row.place,
                hint="start the run anew, or put the file back and go on with --resume",
            )
        return self.prepared(decoded(content, self.channels, place=row.place))


def decoded(content: bytes, channels: int, *, place: str) -> Any:
    """A Pillow image, upright and in the channels of the model; `DataError` when it cannot be."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image: Any = Image.open(BytesIO(content))
        image.load()
        image = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise DataError("no image that Pillow can read", place=place) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"the image cannot be read: {error}", place=place) from None
    return _in_channels(image, channels, place)


def _in_channels(image: Any, channels: int, place: str) -> Any:
    """The image in colours or in grey; never with a guess at what a pixel means."""
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("RGBA", "LA"):
        if image.getchannel("A").getextrema()[0] < 255:
            hint = "lay it on a background, and save it without transparency"
            raise DataError(f"the image is transparent ({image.mode})", place=place, hint=hint)
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    wanted, known = ("RGB", _COLOURS) if channels == 3 else ("L", _GREY)
    if image.mode not in known:
        sees = "one channel of grey" if channels == 1 else "colours of 8 bits"
        hint = "save it as 8-bit grey" if channels == 1 else "save it as 8-bit RGB"
        raise DataError(f"the image is {image.mode}, the model sees {sees}", place=place, hint=hint)
    return image if image.mode == wanted else image.convert(wanted)


def _file(row: EncodedRow) -> Path:
    assert row.image is not None
    return Path(row.image)


def _bytes(path: Path, place: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no image {path.name}", place=place, hint=str(path)) from None
    except OSError as error:
        message = f"the image {path.name} cannot be read: {error.strerror}"
        raise DataError(message, place=place) from None


def _hashed(content: bytes) -> list[int]:
    digest = hashlib.blake2b(content, digest_size=_HASH).digest()
    numbers: list[int] = np.frombuffer(digest, dtype="<i4").tolist()
    return numbers
