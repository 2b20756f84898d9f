import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.fidelity import sqnr_db
from edgepack.importers.slices import WorstSlice, find_worst_slice


@pytest.mark.parametrize("axis", [1, 2])
def test_wrong_scores_beside_large_boxes_are_found(axis: int) -> None:
    generator = np.random.default_rng(1)
    boxes = generator.uniform(100, 600, (1, 50, 4))
    scores = generator.uniform(0, 0.2, (1, 50, 1))
    right = np.concatenate([boxes, scores], axis=2).astype(np.float32)
    wrong = np.concatenate([boxes, scores[:, ::-1]], axis=2).astype(np.float32)
    if axis == 1:
        right, wrong = right.transpose(0, 2, 1), wrong.transpose(0, 2, 1)
    assert sqnr_db(right, wrong) > 60
    found = find_worst_slice([right], [wrong])
    assert found is not None
    assert (found.axis, found.index) == (axis, 4)
    assert found.sqnr_db < 10
    assert find_worst_slice([right], [right]) is None


@given(st.integers(0, 10**6))
def test_rounding_of_the_largest_values_is_no_finding(seed: int) -> None:
    generator = np.random.default_rng(seed)
    reference = generator.normal(size=(1, 6, 5)) * 10.0 ** generator.integers(-9, 3, (1, 6, 1))
    largest = np.max(np.abs(reference))
    noise = generator.uniform(-1e-5, 1e-5, reference.shape) * largest
    assert find_worst_slice([reference], [reference + noise]) is None


def test_what_has_no_slices_has_no_finding() -> None:
    one, two = np.ones((1, 1)), np.zeros((1, 1))
    assert find_worst_slice([one], [two]) is None
    assert find_worst_slice([np.float32(1)], [np.float32(2)]) is None  # type: ignore[list-item]
    assert find_worst_slice([np.ones((1, 0))], [np.ones((1, 0))]) is None
    assert find_worst_slice([np.ones((1, 2)), np.ones((1, 3))], [np.ones((1, 2))] * 2) is None
    assert find_worst_slice([np.ones((1, 2))], [np.array([[1.0, 0.0]])]) == WorstSlice(
        axis=1, index=1, sqnr_db=0.0
    )
