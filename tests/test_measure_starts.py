"""The cold and the warm start, in the record and as they are shown."""

from collections.abc import Sequence
from dataclasses import replace

from edgepack.measure.launch import LatencyLaunch
from edgepack.measure.record import Measurement, make_measurement, parse_measurement, to_json
from edgepack.measure.starts import Start, figure_starts
from edgepack.report.measured import summarize_measurement
from edgepack.report.rows import figure_rows
from tests.fixtures.measure import make_launch
from tests.fixtures.measured import make_measured


def start(
    init_ns: int, first_ns: int, *, is_cold: bool | None = None, reason: str | None = None
) -> LatencyLaunch:
    launch = make_launch([1_000_000, 1_010_000] * 20)
    return replace(launch, init_ns=init_ns, first_ns=first_ns, is_cold=is_cold, cold_reason=reason)


def with_launches(launches: Sequence[LatencyLaunch]) -> Measurement:
    found = make_measured()
    return make_measurement(
        device_name=found.device_name,
        device=found.device,
        model=found.model,
        engine=found.engine,
        plan=found.plan,
        fitted_plan=found.fitted_plan,
        launches=tuple(launches),
        golden=found.golden,
        before=found.before,
        after=found.after,
        provenance=found.provenance,
    )


WARM = [start(4_000_000, 2_000_000), start(5_000_000, 2_500_000), start(9_000_000, 1_000_000)]


def shown(measurement: Measurement) -> dict[str, tuple[str, str]]:
    rows = figure_rows(summarize_measurement(measurement))
    return {name: (value, remark) for name, value, remark in rows if name.endswith("start")}


def test_the_cold_launch_stands_against_the_others() -> None:
    measurement = with_launches([start(40_000_000, 12_000_000, is_cold=True), *WARM])
    found = measurement.starts
    assert found.cold == Start(
        init_ns=40_000_000, first_ns=12_000_000, total_ns=52_000_000, num_launches=1
    )
    assert found.warm == Start(
        init_ns=5_000_000, first_ns=2_000_000, total_ns=7_500_000, num_launches=3
    )
    assert shown(measurement) == {
        "cold start": (
            "52.0 ms",
            "load 40.0 ms, first inference 12.0 ms; the model's file was not in memory",
        ),
        "warm start": ("7.50 ms", "load 5.00 ms, first inference 2.00 ms; medians of 3 launches"),
    }
    assert parse_measurement(to_json(measurement)) == measurement
    assert to_json(measurement)["starts"] == {
        "cold": {
            "init_ns": 40_000_000,
            "first_ns": 12_000_000,
            "total_ns": 52_000_000,
            "num_launches": 1,
        },
        "warm": {
            "init_ns": 5_000_000,
            "first_ns": 2_000_000,
            "total_ns": 7_500_000,
            "num_launches": 3,
        },
        "cold_reason": None,
    }


def test_a_file_that_stayed_in_memory_gives_a_warm_start_and_the_reason() -> None:
    reason = "9 of 9 pages of the model stayed in memory"
    measurement = with_launches([start(1_000, 1_000, is_cold=False, reason=reason), *WARM])
    assert figure_starts(measurement.launches).warm == Start(
        init_ns=4_500_000, first_ns=1_500_000, total_ns=6_750_000, num_launches=4
    )
    assert shown(measurement)["cold start"] == ("—", reason)


def test_the_only_launch_began_cold() -> None:
    measurement = with_launches([start(40_000_000, 12_000_000, is_cold=True)])
    assert shown(measurement)["warm start"] == ("—", "the only launch began cold")


def test_an_older_result_tells_no_cold_start() -> None:
    measurement = with_launches(WARM)
    table = to_json(measurement)
    launches = table["launches"]
    assert isinstance(launches, list)
    for key in ("is_steady", "is_cold", "cold_reason"):
        assert all(key in launch for launch in launches)
    table["launches"] = [
        {key: value for key, value in launch.items() if key not in ("is_cold", "cold_reason")}
        for launch in launches
    ]
    del table["starts"]
    read = parse_measurement(table)
    assert read == measurement
    assert shown(read)["cold start"] == (
        "—",
        "no launch began with the model's file out of memory",
    )
