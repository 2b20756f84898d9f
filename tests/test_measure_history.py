"""The history of results: what is kept, and what a damaged file does."""

import sqlite3
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.errors import HistoryError
from edgepack.measure import history
from edgepack.measure.history import History
from tests.fixtures.measured import make_measured


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    measured = make_measured()
    with History(tmp_path / "deep" / "h.sqlite") as opened:
        assert opened.add(measured) == 1
    with History(tmp_path / "deep" / "h.sqlite") as opened:
        (entry,) = opened.entries()
        assert opened.load(1) == measured
    assert (entry.id, entry.device, entry.model, entry.recipe) == (
        *(1, "pi@kitchen", "digits", "int8"),
    )
    assert entry.median_ns == 1_005_000
    assert entry.interval_ns == (1_005_000, 1_005_000)
    assert (entry.peak_memory_bytes, entry.num_samples) == (50_000_000, 240)


def test_results_are_found_by_device_model_and_recipe(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as opened:
        for device in ("a", "b", "a'; DROP TABLE results; --", "a"):
            opened.add(make_measured(device=device))
        assert [each.id for each in opened.entries(device="a")] == [1, 4]
        assert [each.id for each in opened.entries(device="a", limit=1)] == [4]
        assert [each.id for each in opened.entries(device="a'; DROP TABLE results; --")] == [3]
        assert [each.id for each in opened.entries(model="digits", recipe="int8")] == [1, 2, 3, 4]
        assert opened.entries(recipe="float32") == ()


def test_older_results_keep_their_figures_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "NUM_WHOLE", 2)
    with History(tmp_path / "h.sqlite") as opened:
        for _ in range(3):
            opened.add(make_measured())
        assert len(opened.entries()) == 3
        assert opened.load(2) == make_measured()
        with pytest.raises(HistoryError) as caught:
            opened.load(1)
        assert caught.value.message == (
            "result 1 keeps its figures alone: the samples of the last 2 results are kept"
        )
        with pytest.raises(HistoryError) as caught:
            opened.load(4)
        assert caught.value.message == "the history has no result 4"


def _add(path: Path) -> int:
    with History(path) as opened:
        return opened.add(make_measured())


def test_two_programs_may_add_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(max_workers=2) as pool:
        numbers = list(pool.map(_add, [tmp_path / "h.sqlite"] * 8))
    assert sorted(numbers) == list(range(1, 9))


def test_another_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    path.write_bytes(b"my own notes " * 100)
    with pytest.raises(HistoryError) as caught:
        History(path)
    assert caught.value.message == (f"{path}: the history cannot be used: file is not a database")
    assert caught.value.remedy == "Move that file away; the next measurement begins a new one."
    assert path.read_bytes() == b"my own notes " * 100


def test_a_history_of_a_later_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(HistoryError) as caught:
        History(path)
    assert caught.value.message == f"{path}: expected a history of schema 2, not 7"


def _make_older(path: Path) -> None:
    """Make a history what a version before conditions wrote."""
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE results DROP COLUMN conditions")
        connection.execute("PRAGMA user_version = 1")
    connection.close()


def test_a_history_without_conditions_is_taken_over(tmp_path: Path) -> None:
    path, measured = tmp_path / "h.sqlite", make_measured()
    with History(path) as opened:
        opened.add(measured)
    _make_older(path)
    # Two programs may meet at it.
    with ProcessPoolExecutor(max_workers=2) as pool:
        assert sorted(pool.map(_add, [path] * 2)) == [2, 3]
    with History(path) as opened:
        old, *new = opened.entries()
        assert opened.load(1) == measured
    assert (old.median_ns, old.told_conditions) == (1_005_000, None)
    for each in new:
        assert each.told_conditions is not None
        assert each.told_conditions["governor"] == "ondemand"
        assert each.told_conditions["highest clock"] == "1.80 GHz"
        assert each.told_conditions["cores it was held to"] == "all"


def test_what_a_device_does_not_tell_is_no_condition(tmp_path: Path) -> None:
    measured = make_measured()
    silent = replace(measured.before, governor=None, maximum_khz=None)
    with History(tmp_path / "h.sqlite") as opened:
        opened.add(replace(measured, before=silent))
        (entry,) = opened.entries()
    assert entry.told_conditions is not None
    assert {"governor", "highest clock"}.isdisjoint(entry.told_conditions)
    for damage in ("{", "7", '["a"]'):
        assert replace(entry, conditions=damage).told_conditions == {}


@pytest.mark.parametrize("damage", [b"junk", b"", "zip"])
def test_a_damaged_result_is_told(tmp_path: Path, damage: bytes | str) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as opened:
        opened.add(make_measured())
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE results SET whole = ?", (damage,))
        connection.close()
        with pytest.raises(HistoryError) as caught:
            opened.load(1)
        assert caught.value.message.startswith(f"{path}: result 1 is damaged: ")
