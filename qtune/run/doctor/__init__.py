"""`qtune doctor`: what this machine can do, found by doing it; each check survives the others."""

from qtune.run.doctor.checks import examine
from qtune.run.doctor.finding import Finding, State

__all__ = ["Finding", "State", "examine"]
