"""Warnings from series made by hand: at the threshold, not below it, and once."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.run.monitoring import alerts
from qtune.run.monitoring.alerts import Alerts
from qtune.training import StepEvent


def event(step: int, *, seconds: float = 1.0, tokens: int = 1000, waited: float = 0.0) -> StepEvent:
    return StepEvent(
        step=step,
        total=1000,
        epoch=0.1,
        loss=1.0,
        grad_norm=1.0,
        learning_rate=1e-3,
        tokens=tokens,
        supervised=tokens,
        computed=tokens,
        seconds=seconds,
        waited=waited,
    )


def said(watch: Alerts, events: list[StepEvent]) -> list[tuple[int, str]]:
    return [(each.step, alert.name) for each in events for alert in watch.on_step(each)]


def test_waiting_for_rows_is_said_once_when_it_has_taken_its_share_for_long_enough() -> None:
    at = alerts.LOADER_SHARE
    few = [event(step, waited=at - 0.01) for step in range(1, 40)]
    assert said(Alerts(), few) == []
    much = [event(step, waited=at + 0.1) for step in range(1, 40)]
    assert said(Alerts(), much) == [(int(alerts.LOADER_SECONDS), "loader")]


def test_one_long_wait_is_an_accident() -> None:
    events = [event(1, seconds=9, waited=8.5), *(event(step) for step in range(2, 60))]
    assert said(Alerts(), events) == []


def test_a_drop_is_measured_against_the_runs_own_median_for_some_events() -> None:
    usual = [event(step) for step in range(1, 41)]
    slow = 1 / (alerts.SLOW_SHARE - 0.05)
    once = [*usual, event(41, seconds=slow), *(event(step) for step in range(42, 60))]
    assert said(Alerts(), once) == []
    lasting = [*usual, *(event(step, seconds=slow) for step in range(41, 60))]
    found = said(Alerts(), lasting)
    assert [name for _, name in found] == ["throughput"]
    assert 41 < found[0][0] <= 40 + alerts.SLOW_EVENTS
    little = [*usual, *(event(step, seconds=1 / 0.7) for step in range(41, 60))]
    assert said(Alerts(), little) == []


def test_short_steps_prove_nothing() -> None:
    quick = [event(step, seconds=0.01, tokens=10) for step in range(1, 41)]
    slow = [event(step, seconds=0.1, tokens=10) for step in range(41, 60)]
    assert said(Alerts(), quick + slow) == []


GB = 10**9


@pytest.mark.parametrize(
    ("reading", "name"),
    [
        ({"peak_bytes": 9.4 * GB}, None),
        ({"peak_bytes": 9.6 * GB}, "memory"),
        ({"host_free_bytes": 2.1 * GB}, None),
        ({"host_free_bytes": 1.9 * GB}, "host memory"),
        ({"disk_free_bytes": 2.2 * GB}, None),
        ({"disk_free_bytes": 1.9 * GB}, "disk"),
        ({}, None),
    ],
)
def test_what_runs_low_is_said_once(reading: dict[str, float], name: str | None) -> None:
    watch = Alerts(
        budget_bytes=10 * GB, planned_bytes=5 * GB, host_bytes=40 * GB, checkpoint_bytes=GB
    )
    found = [alert.name for _ in range(3) for alert in watch.on_readings(reading)]
    assert found == ([] if name is None else [name])


def test_a_plan_that_fills_the_memory_is_kept_silently_until_it_is_full() -> None:
    sizes: dict[str, Any] = {"budget_bytes": 1000, "planned_bytes": 970}
    assert Alerts(**sizes).on_readings({"peak_bytes": 969}) == []
    assert [one.name for one in Alerts(**sizes).on_readings({"peak_bytes": 971})] == ["memory"]
    assert [one.name for one in Alerts(**sizes).on_readings({"peak_bytes": 985})] == ["memory"]


def test_every_warning_says_what_to_do() -> None:
    watch = Alerts(budget_bytes=10, planned_bytes=1, host_bytes=100, checkpoint_bytes=1)
    found = watch.on_readings({"peak_bytes": 10, "host_free_bytes": 1, "disk_free_bytes": 1})
    assert {alert.name for alert in found} == {"memory", "host memory", "disk"}
    assert all(": " in alert.message for alert in found)


@pytest.mark.parametrize(
    ("joining", "seconds", "named"),
    [
        ([9.0, 9.5, 1.0, 8.5], 40.0, 2),
        ([1.0, 6.0], 30.0, 0),
        ([9.0, 9.5, 8.0, 8.5], 40.0, None),
        ([9.0, 0.0], 15.0, None),
    ],
)
def test_the_process_that_the_others_wait_for_is_named(
    joining: list[float], seconds: float, named: int | None
) -> None:
    watch = Alerts()
    found = [one for _ in range(3) for one in watch.on_ranks(joining, seconds=seconds)]
    assert len(found) == (named is not None)
    assert all(f"process {named} " in alert.message for alert in found)
