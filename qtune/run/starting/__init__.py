"""`qtune init`: a first recipe for a person's model, rows and GPU, planned before it is written."""

from qtune.run.starting.looking import Look, look
from qtune.run.starting.start import Answers, Started, known_model, start

__all__ = ["Answers", "Look", "Started", "known_model", "look", "start"]
