import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgepack.data import InputHint, InputRole
from edgepack.data.samples import make_samples
from edgepack.importers.trials import (
    Trial,
    describe_left_out,
    draw_trials,
    join_trials,
    move_inputs,
    pick_trial,
    spread,
)
from edgepack.model import TensorSpec

IMAGE = TensorSpec(name="image", shape=(1, 16, 16, 3), dtype="float32")
IDS = TensorSpec(name="ids", shape=(1, 5), dtype="int64")
STATE = TensorSpec(name="h", shape=(1, 8), dtype="float32")
HINTS = {"ids": InputHint(maximum=1), "h": InputHint(role=InputRole.STATE)}


def test_sets_differ_in_range_and_each_has_its_seed() -> None:
    trials = draw_trials((IMAGE, IDS, STATE), HINTS)
    assert len({trial.seed for trial in trials}) == len(trials) == 3
    columns = [dict(trial.samples.arrays) for trial in trials]
    largest = [float(np.max(column["image"])) for column in columns]
    assert largest[0] <= 1
    assert largest[1] > 100
    assert np.min(columns[2]["image"]) < -1
    assert {int(column["ids"].max()) for column in columns} == {1}
    # A state that a converter dropped agrees as long as it is zero.
    assert [bool(np.any(column["h"])) for column in columns] == [False, True, True]
    assert [trial.scale for trial in trials][1] == 1


def test_the_set_that_failed_is_picked_again() -> None:
    trials = draw_trials((IMAGE,), {})
    again = pick_trial((IMAGE,), {}, samples=None, seed=trials[1].seed, sample=2, most=2)
    assert again.seed == trials[1].seed
    assert again.samples.num_samples == 2
    picked = dict(again.samples.arrays)["image"]
    assert np.max(picked) > 100
    assert np.array_equal(picked[0], dict(trials[1].samples.arrays)["image"][2])
    # Of the user's, 16 are compared: of 31 every other, whose third is the fifth of all.
    own = make_samples([("image", np.arange(31, dtype=np.float32))])
    trial = pick_trial((IMAGE,), {}, samples=own, seed=None, sample=2, most=2)
    assert trial.seed is None
    assert dict(trial.samples.arrays)["image"].tolist() == [4, 0]
    alone = make_samples([("image", np.zeros(1, np.float32))])
    trial = pick_trial((IMAGE,), {}, samples=alone, seed=None, sample=0, most=2)
    assert trial.samples.num_samples == 1


@given(st.integers(1, 50), st.integers(1, 20))
def test_samples_are_spread_from_the_first_to_the_last(num_samples: int, most: int) -> None:
    given_samples = make_samples([("x", np.arange(num_samples))])
    places = dict(spread(given_samples, most).arrays)["x"].tolist()
    assert len(places) == min(num_samples, most)
    assert places == sorted(set(places))
    assert places[0] == 0
    if most > 1:
        assert places[-1] == num_samples - 1


def test_moved_inputs_differ_by_two_roundings_and_integers_stay() -> None:
    trial = draw_trials((IMAGE, IDS), HINTS)[1]
    moved = move_inputs(trial, 2)
    assert moved is not None
    first, second = dict(trial.samples.arrays), dict(moved.arrays)
    assert np.array_equal(first["ids"][:2], second["ids"])
    image, other = first["image"][:2], second["image"]
    assert other.dtype == np.float32
    # Black stays black.
    assert np.array_equal(other == 0, image == 0)
    steps = (np.abs(other - image) / np.spacing(image))[image != 0]
    assert 1 <= steps.min() <= steps.max() <= 4
    assert move_inputs(Trial(seed=None, samples=make_samples([("ids", first["ids"])])), 2) is None


def test_sets_are_joined_in_their_order() -> None:
    trials = draw_trials((IDS,), HINTS)
    joined = join_trials([trial.samples for trial in trials])
    assert joined.num_samples == sum(trial.samples.num_samples for trial in trials)
    last = dict(trials[-1].samples.arrays)["ids"]
    assert np.array_equal(dict(joined.arrays)["ids"][-len(last) :], last)


def test_sets_that_were_left_out_are_told() -> None:
    seeds = [trial.seed for trial in draw_trials((IMAGE,), {}) if trial.seed is not None]
    assert describe_left_out(seeds) is None
    assert describe_left_out(()) is None  # the user's own samples
    assert describe_left_out(seeds[:1]) == (
        "parity was checked on 1 of 3 sets of generated inputs: the source did not run on the "
        "others, gave no finite numbers, or too different ones when their last bits moved: give "
        "real data with --data"
    )
