"""What several devices gain over one: traffic, its share of a step, and from where on they pay."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from qtune.plan.traffic import traffic_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtune.plan.choices import Choice, Planner

MOST_ROWS = 4096
DEVICES = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Distribution:
    """What one of several devices does for the others in an optimizer step, and what that gains."""

    wire: str
    """What joins the devices."""
    bandwidth: float
    """Bytes a second that each sends over it, as the estimates take it."""
    gradient_bytes: int
    """Sent by each device, and as many received."""
    weight_bytes: int
    """The same, of layers that come from the other devices."""
    exchange_seconds: float
    """Beyond the work that it runs beside."""
    exchange_share: float
    """Of the step's seconds."""
    seconds_alone: float | None
    """The same step on one such device; None where it has no room for it."""
    speed_up: float | None
    """How many times faster than that one the devices are together."""
    pays_from_rows: int | None
    """The smallest batch_size that the devices are faster with than one; None without one."""
    hidden_from_tokens: int | None
    """Tokens of a pass from which layers come while others compute; None where none come."""
    pass_tokens: int
    """Tokens of a pass as it is planned."""


@dataclass(frozen=True)
class Pace:
    """Seconds of a step by its number of rows."""

    row: float
    """Of each row, in the process that has it."""
    fixed: float
    """Of every step: the update, and the gradients' way."""
    processes: int = 1

    def seconds(self, rows: int) -> float:
        """Of a step of so many rows; a process has as many as any other, or one fewer."""
        return ceil(rows / self.processes) * self.row + self.fixed


def pays_from(one: Pace, several: Pace) -> int | None:
    """The fewest rows of a step that several take in less time than one; None if they never do."""
    counts = range(2, MOST_ROWS + 1)
    return next((rows for rows in counts if several.seconds(rows) < one.seconds(rows)), None)


def distribution(
    planner: Planner, chosen: Choice, alone: Choice | None, *, passes: int
) -> Distribution:
    """Of a way that several processes run, `passes` micro-batches each a step; `alone`: how one of
    them would run it, None where it cannot."""
    work, seconds = planner.work, chosen.seconds
    traffic, shares = traffic_of(planner.costs, chosen.way), chosen.way.strategy == "fsdp"
    one = None if alone is None else alone.seconds
    return Distribution(
        wire=work.wire,
        bandwidth=work.between,
        gradient_bytes=traffic.gradients,
        weight_bytes=passes * traffic.visits * traffic.weights,
        exchange_seconds=chosen.estimate.exchange,
        exchange_share=chosen.estimate.exchange / seconds,
        seconds_alone=one,
        speed_up=None if one is None else one / seconds,
        pays_from_rows=None if alone is None else _pays_from(planner, chosen, alone),
        hidden_from_tokens=work.break_even_tokens(chosen.way) if shares else None,
        pass_tokens=chosen.way.micro_batch_size * planner.costs.row_tokens,
    )


def _pays_from(planner: Planner, chosen: Choice, alone: Choice) -> int | None:
    costs = planner.costs
    summing = traffic_of(costs, chosen.way).gradients / planner.work.between
    fixed = chosen.estimate.update + summing
    several = Pace((chosen.seconds - fixed) / costs.rows, fixed, costs.processes)
    rows, fixed = costs.recipe.train.batch_size, alone.estimate.update
    return pays_from(Pace((alone.seconds - fixed) / rows, fixed), several)


def fewest_devices(processes: int, fits: Callable[[int], bool]) -> int | None:
    """The smallest usual number of devices above `processes` that has room; None without one."""
    return next((number for number in DEVICES if number > processes and fits(number)), None)
