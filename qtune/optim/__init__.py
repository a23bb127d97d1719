"""Optimizers and learning-rate schedules by name."""

from qtune.optim.allocation import states_held
from qtune.optim.optimizers import OPTIMIZERS, make, set_learning_rate, state_bytes
from qtune.optim.schedules import schedule
from qtune.optim.state import load_state, state_of
from qtune.optim.stepping import step_unless

__all__ = [
    "OPTIMIZERS",
    "load_state",
    "make",
    "schedule",
    "set_learning_rate",
    "state_bytes",
    "state_of",
    "states_held",
    "step_unless",
]
