"""Outputs of ids, such as an argmax's classes: right or wrong, never near."""

import numpy as np
import pytest

from edgepack.bundle.golden import Golden
from edgepack.errors import DataError
from edgepack.fidelity import Fidelity, compare_outputs, parse_fidelity, to_json
from edgepack.measure.golden import judge_golden
from edgepack.model import Signature, TensorSpec
from edgepack.optimize.judging.floors import Floors, judge

IDS = (3, 1, 4, 1, 5, 9, 2, 6, 5, 3)


def compare(candidate: tuple[int, ...], labels: tuple[int, ...] | None = None) -> Fidelity:
    return compare_outputs(
        [(np.array([each], np.int32),) for each in IDS],
        [(np.array([each], np.int32),) for each in candidate],
        names=("class",),
        labels=None if labels is None else np.array(labels),
    )


def test_ids_are_judged_by_the_share_that_is_equal() -> None:
    fidelity = compare((4, *IDS[1:]))
    (output,) = fidelity.outputs
    assert output.is_index
    assert output.top1_agreement == fidelity.top1_agreement == 0.9
    assert output.sqnr_db == pytest.approx(10.0)  # one of ten is wrong, by however much
    assert compare((900, *IDS[1:])).outputs[0].sqnr_db == output.sqnr_db
    assert judge(fidelity, Floors()) == ()
    assert judge(compare((0, 0, *IDS[2:])), Floors()) == (
        "output 'class': top-1 agreement 80.0% (95%: 49.0 to 94.3) is below 90%",
    )


def test_equal_ids_read_300_db() -> None:
    assert compare(IDS).sqnr_db == 300.0


def test_labels_are_compared_with_the_ids() -> None:
    fidelity = compare((4, *IDS[1:]), labels=(3, *IDS[1:9], 7))
    assert (fidelity.reference_accuracy, fidelity.accuracy) == (0.9, 0.8)


def test_a_map_of_ids_has_no_label() -> None:
    maps = [(np.zeros((1, 2, 2), np.int32),)]
    with pytest.raises(DataError, match="labels were given, but no output"):
        compare_outputs(maps, maps, names=("map",), labels=np.array([0]))


def test_small_integers_are_numbers() -> None:
    ours, theirs = [(np.array([100], np.uint8),)], [(np.array([101], np.uint8),)]
    (output,) = compare_outputs(ours, theirs, names=("gray",)).outputs
    assert not output.is_index
    assert output.sqnr_db == pytest.approx(40.0)


def test_a_record_keeps_what_they_are() -> None:
    fidelity = compare((4, *IDS[1:]))
    assert parse_fidelity(to_json(fidelity)) == fidelity


@pytest.mark.parametrize(
    ("num_wrong", "is_quantized", "reasons"),
    [
        (0, False, ()),
        (1, False, ("output 'class': 25.0% of its ids are not the host's, at most 1% may be",)),
        (2, True, ()),
        (3, True, ("output 'class': 75.0% of its ids are not the host's, at most 50% may be",)),
    ],
)
def test_a_device_must_give_the_hosts_ids(
    num_wrong: int,
    is_quantized: bool,  # noqa: FBT001 - pytest passes it by name
    reasons: tuple[str, ...],
) -> None:
    signature = Signature(
        inputs=(TensorSpec(name="x", shape=(1,), dtype="float32"),),
        outputs=(TensorSpec(name="class", shape=(1,), dtype="int32"),),
    )
    host = np.array([7, 8, 9, 1], "<i4")
    golden = Golden(
        num_samples=4,
        inputs=(np.zeros(4, "<f4").tobytes(),),
        reference=(host.tobytes(),),
        host=(host.tobytes(),),
    )
    device = host.copy()
    device[:num_wrong] += 1
    verdict = judge_golden(
        golden, [device.tobytes()], signature=signature, is_quantized=is_quantized
    )
    assert verdict.reasons == reasons
    assert verdict.passed == (not reasons)
