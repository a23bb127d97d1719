"""Optimizers and learning-rate schedules by name."""

from qtune.optim.optimizers import OPTIMIZERS, make, set_learning_rate, state_bytes
from qtune.optim.schedules import schedule

__all__ = ["OPTIMIZERS", "make", "schedule", "set_learning_rate", "state_bytes"]
