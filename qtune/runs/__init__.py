"""The run folder: what is written, where, and how."""

from qtune.runs.environment import environment
from qtune.runs.folder import RunFolder

__all__ = ["RunFolder", "environment"]
