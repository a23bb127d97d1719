"""A tiny ViT with its image processor, and pictures to tell apart, made in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

PATTERNS = ("checks", "columns", "rows")
SIDE = 32


def tiny_vit(seed: int = 0, **overrides: Any) -> ViTForImageClassification:
    """A random ViT of about 80k parameters in fp32, 17 tokens an image; its head is of no use."""
    settings: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 8,
        "initializer_range": 0.1,
    }
    torch.manual_seed(seed)
    return ViTForImageClassification(ViTConfig(**{**settings, **overrides}))


def save_tiny_vit(folder: Path, model: ViTForImageClassification | None = None) -> Path:
    """Write a whole Hugging Face folder: config, weights and image processor."""
    (model or tiny_vit()).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def draw(folder: Path, each: int, *, seed: int) -> Path:
    """A folder of folders of pictures: stripes along rows or columns, or checks, in any two
    colours, of any width and beginning."""
    random = np.random.default_rng(seed)
    for name in PATTERNS:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(_picture(name, random)).save(folder / name / f"{number:03}.png")
    return folder


def _picture(name: str, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    width = int(random.integers(2, 5))
    tall = (np.arange(SIDE)[:, None] + random.integers(8)) // width % 2
    wide = (np.arange(SIDE)[None, :] + random.integers(8)) // width % 2
    stripes = {"rows": tall + 0 * wide, "columns": 0 * tall + wide, "checks": (tall + wide) % 2}
    colours = np.stack([random.integers(0, 100, 3), random.integers(150, 256, 3)])
    drawn = colours[stripes[name]] + random.integers(-20, 20, (SIDE, SIDE, 3))
    return np.clip(drawn, 0, 255).astype(np.uint8)
