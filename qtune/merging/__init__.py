"""An adapter folded into full weights, written shard by shard and checked."""

from qtune.merging.card import card
from qtune.merging.companions import Chat
from qtune.merging.fidelity import Fidelity
from qtune.merging.masks import keep_zeros
from qtune.merging.merge import Merge, MergeReport, auto_class, preflight, prepare, write
from qtune.merging.progress import made_of

__all__ = [
    "Chat",
    "Fidelity",
    "Merge",
    "MergeReport",
    "auto_class",
    "card",
    "keep_zeros",
    "made_of",
    "preflight",
    "prepare",
    "write",
]
