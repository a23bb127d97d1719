"""Base models: found, checked, read tensor by tensor and quantised."""

from qtune.models.base import Base, Inventory, InventoryRow, inventory
from qtune.models.files import resolve, shard_index
from qtune.models.fingerprint import fingerprint
from qtune.models.fuse import fuse
from qtune.models.image_processor import load_image_processor
from qtune.models.isolation import check_isolation
from qtune.models.loading import load
from qtune.models.measuring import measure
from qtune.models.sharding import Spread
from qtune.models.sharing import check_sharing, why_apart
from qtune.models.tokenizer import load_tokenizer
from qtune.models.unfolded import keep_unfolded

__all__ = [
    "Base",
    "Inventory",
    "InventoryRow",
    "Spread",
    "check_isolation",
    "check_sharing",
    "fingerprint",
    "fuse",
    "inventory",
    "keep_unfolded",
    "load",
    "load_image_processor",
    "load_tokenizer",
    "measure",
    "resolve",
    "shard_index",
    "why_apart",
]
