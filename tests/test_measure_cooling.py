"""Waiting for a device to cool, on a clock of the test's own."""

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from edgepack._fields import Fields
from edgepack.measure.cooling import CoolDown, Rest, read_rests, rest, sum_up, to_json
from edgepack.measure.record import make_measurement, parse_measurement
from edgepack.measure.record import to_json as record_to_json
from edgepack.measure.validity import VerdictName
from edgepack.report.measured import summarize_measurement
from edgepack.report.terminal import render_benchmark, render_text
from tests.fixtures.measured import make_measured


class Board:
    """A board that tells these temperatures, one a look, the last again and again."""

    def __init__(self, temperatures: Iterable[float | None]) -> None:
        self.left = list(temperatures)
        self.seconds = 0.0

    def read(self) -> float | None:
        self.seconds += 0.25  # asking takes its time
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds

    def rest(self, *, began_c: float | None, max_seconds: float = 60) -> Rest:
        self.warm: list[float] = []
        return rest(
            self.read,
            began_c=began_c,
            max_seconds=max_seconds,
            on_warm=self.warm.append,
            sleep=self.sleep,
            clock=lambda: self.seconds,
        )


def test_a_cool_device_is_not_waited_for() -> None:
    board = Board([46.9])
    assert board.rest(began_c=45.0) == Rest(seconds=0.25, temperature_c=46.9)
    assert board.warm == []


def test_a_warm_device_is_waited_for_until_it_is_back() -> None:
    board = Board([61.0, 55.5, 47.0, 40.0])
    assert board.rest(began_c=45.0) == Rest(seconds=4.75, temperature_c=47.0)
    assert board.warm == [61.0, 55.5]


def test_the_wait_has_an_end() -> None:
    board = Board([61.0])
    found = board.rest(began_c=45.0, max_seconds=10)
    assert found.temperature_c == 61.0
    assert 10 <= found.seconds <= 10.25


@pytest.mark.parametrize("began_c", [None, 45.0])
def test_without_a_thermometer_all_of_the_time_is_waited(began_c: float | None) -> None:
    found = Board([None]).rest(began_c=began_c, max_seconds=30)
    assert found.temperature_c is None
    assert 30 <= found.seconds <= 30.25


RESTS = (Rest(seconds=1.5, temperature_c=46.0), *(Rest(seconds=12.0, temperature_c=49.0),) * 5)


def test_waits_are_summed_up_against_where_the_device_began() -> None:
    assert sum_up((), began_c=45.0) is None
    assert sum_up(RESTS, began_c=45.0) == CoolDown(
        num_rests=6, seconds=61.5, goal_c=45.0, num_warm=5
    )
    blind = (Rest(seconds=30.0, temperature_c=None),) * 2
    assert sum_up(blind, began_c=None) == CoolDown(
        num_rests=2, seconds=60.0, goal_c=None, num_warm=0
    )


def test_waits_survive_json_and_nonsense_does_not() -> None:
    table = json.loads(json.dumps({"rests": to_json(RESTS)}))
    fields = Fields(table)
    assert read_rests(fields, "rests") == RESTS
    assert (fields.faults, read_rests(Fields({}), "rests")) == ([], ())
    for wrong, said in (
        ([{"seconds": -1, "temperature_c": None}], "rests[0].seconds: expected at least 0, not -1"),
        ([{"seconds": 1, "temperature_c": "x"}], "rests[0].temperature_c: expected a number"),
        ([{}] * 1001, "rests: expected at most 1000, not 1001"),
    ):
        fields = Fields({"rests": wrong})
        read_rests(fields, "rests")
        assert said in fields.faults[0]


def test_the_result_tells_of_its_waits_and_of_launches_that_began_warm() -> None:
    given = make_measured()
    found = make_measurement(
        device_name=given.device_name,
        device=given.device,
        model=given.model,
        engine=given.engine,
        plan=replace(given.plan, cooldown_seconds=12.0),
        fitted_plan=replace(given.fitted_plan, cooldown_seconds=12.0),
        launches=given.launches,
        golden=given.golden,
        before=given.before,  # 46.3 °C
        after=given.after,
        rests=RESTS,
    )
    assert found.validity.verdict is VerdictName.NOISY
    (reason,) = found.validity.reasons
    assert reason == (
        "5 of 6 launches began more than 2 °C above the 46 °C of before: let the device cool "
        "longer (--cooldown), or give it a fan"
    )
    assert parse_measurement(json.loads(json.dumps(record_to_json(found)))) == found
    said = render_text(render_benchmark(summarize_measurement(found)))
    assert (
        "cool-down: 6 waits, 61.5 s together, each until 2 °C above 46.3 °C; 5 ended warmer" in said
    )
    cool = replace(found, rests=(Rest(seconds=0.1, temperature_c=None),) * 6)
    said = render_text(render_benchmark(summarize_measurement(cool)))
    assert "cool-down: 6 waits, 600 ms together; no thermometer can be read" in said
