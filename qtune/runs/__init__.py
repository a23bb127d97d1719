"""The run folder: what is written, where, and how."""

from qtune.runs.checkpoint import Checkpoint, newest_valid
from qtune.runs.environment import environment
from qtune.runs.folder import RunFolder, space_needed

__all__ = ["Checkpoint", "RunFolder", "environment", "newest_valid", "space_needed"]
