"""What layers cost: ranked, summed up, and kept as JSON."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import OptimizeError
from edgepack.optimize.ranking.layer_costs import (
    KeptCost,
    Precision,
    parse_sensitivity,
    predict_sqnr_db,
    rank_layers,
    sensitivity_to_json,
)
from tests.fixtures.sensitivity import layer_cost, made_up


def test_of_equal_layers_the_worst_is_kept_first() -> None:
    found = made_up(
        layer_cost("a", output_db=30.0),
        layer_cost("b", output_db=10.0),
        layer_cost("c", output_db=20.0),
    )
    assert rank_layers(found, "int8") == ("b", "c", "a")


def test_a_small_layer_comes_before_a_large_one_that_costs_hardly_more() -> None:
    found = made_up(
        layer_cost("large", output_db=19.0, num_weights=10_000, num_macs=10),
        layer_cost("small", output_db=20.0, num_weights=10, num_macs=10_000),
    )
    assert rank_layers(found, "int8", cost=KeptCost.BYTES) == ("small", "large")
    assert rank_layers(found, "int8", cost=KeptCost.MACS) == ("large", "small")


def test_a_tiny_layer_that_does_no_harm_is_not_first() -> None:
    tiny = layer_cost("tiny", output_db=45.0, num_weights=1, num_macs=1)
    found = made_up(tiny, *(layer_cost(f"{i}", output_db=30.0 + i) for i in range(4)))
    assert rank_layers(found, "int8")[-1] == "tiny"


def test_shifts_of_the_mean_do_not_count_when_they_are_corrected() -> None:
    found = made_up(
        layer_cost("shifted", output_db=0.0, corrected_db=40.0), layer_cost("noisy", output_db=20.0)
    )
    assert rank_layers(found, "int8") == ("shifted", "noisy")
    assert rank_layers(found, "int8", corrected=True) == ("noisy", "shifted")


@pytest.mark.parametrize("scheme", ["dynamic_range", "int16x8", "weight_only_int8"])
def test_schemes_that_round_weights_alike_rank_alike(scheme: str) -> None:
    found = made_up(
        layer_cost("a", output_db=30.0, scheme=Precision.WEIGHT_ONLY_INT8),
        layer_cost("b", output_db=20.0, scheme=Precision.WEIGHT_ONLY_INT8),
        layer_cost("b", output_db=90.0),
    )
    assert rank_layers(found, scheme) == ("b", "a")


def test_a_scheme_that_rounds_nothing_ranks_nothing() -> None:
    with pytest.raises(ValueError, match="float32"):
        rank_layers(made_up(layer_cost("a", output_db=1.0)), "float32")


@given(levels_db=st.lists(st.floats(-20, 80), min_size=1, max_size=8))
def test_energies_add_up(levels_db: list[float]) -> None:
    found = made_up(*(layer_cost(f"{i}", output_db=db) for i, db in enumerate(levels_db)))
    noise = sum(10 ** (-db / 10) for db in levels_db)
    assert math.isclose(predict_sqnr_db(found, "int8"), -10 * math.log10(noise), abs_tol=1e-9)
    # Keeping a layer never makes it worse, and keeping all is exact.
    assert predict_sqnr_db(found, "int8", kept=["0"]) >= predict_sqnr_db(found, "int8")
    every = [f"{i}" for i in range(len(levels_db))]
    assert predict_sqnr_db(found, "int8", kept=every) == 300.0


def test_json_keeps_everything() -> None:
    found = made_up(layer_cost("a", output_db=30.0), layer_cost("", output_db=-3.5))
    assert parse_sensitivity(json.loads(json.dumps(sensitivity_to_json(found)))) == found


def test_what_breaks_the_schema_is_listed() -> None:
    text = json.dumps(sensitivity_to_json(made_up(layer_cost("a", output_db=30.0))))
    body = json.loads(text.replace('"int8"', '"int9"').replace("30.0", "1e9"))
    body["num_samples"] = 0
    with pytest.raises(OptimizeError) as caught:
        parse_sensitivity(body)
    assert caught.value.message == (
        "sensitivity analysis: 4 faults\n"
        "  - layers[0].scheme: unknown value 'int9'; did you mean 'int8'?\n"
        "  - layers[0].output_sqnr_db: expected at most 300.0, not 1000000000.0\n"
        "  - layers[0].corrected_sqnr_db: expected at most 300.0, not 1000000000.0\n"
        "  - num_samples: expected at least 1, not 0"
    )
