from collections.abc import Mapping

import onnx
import pytest

from edgepack.toolchains import Toolchain
from tests.fixtures.onnx_batch import Result, run_batch
from tests.fixtures.onnx_corpus import Entry
from tests.fixtures.onnx_loops import LOOPS, dependent

pytestmark = pytest.mark.toolchain

_ROWS = (
    "expected loops that can be written out, for their outputs hold one row a trip, but Loop "
    "'loop': "
)


def _refused() -> dict[str, tuple[onnx.ModelProto, str]]:
    """Give models that must be refused, with the reason that must be told."""
    return {
        "trips": (
            dependent(rows=True),
            "how often it runs depends on values, which are known only when the model runs",
        ),
        "condition": (
            dependent(rows=True, limit="", condition="small"),
            "its condition depends on values, which are known only when the model runs",
        ),
        "long": (
            dependent(rows=True, limit="many"),
            "5000 trips of 6 operations, written out, make a graph of more than 8192",
        ),
    }


@pytest.fixture(scope="module")
def results(
    onnx_toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Result]:
    models = {name: build() for name, build in LOOPS.items()}
    models |= {name: model for name, (model, _) in _refused().items()}
    entries = {name: Entry(model=model) for name, model in models.items()}
    return run_batch(onnx_toolchain, tmp_path_factory.mktemp("loops"), entries)


@pytest.mark.parametrize("name", sorted(LOOPS))
def test_a_loop_computes_what_its_source_computes(results: Mapping[str, Result], name: str) -> None:
    assert results[name].error is None
    assert min(results[name].decibels) > 100


@pytest.mark.parametrize("name", sorted(_refused()))
def test_rows_of_as_many_trips_as_values_say_are_refused_by_node_and_reason(
    results: Mapping[str, Result], name: str
) -> None:
    error = results[name].error
    assert error is not None
    assert error["kind"] == "model"
    assert error["message"] == _ROWS + _refused()[name][1]
    assert error["remedy"] == (
        "Export the model with a number of steps that follows from the shapes of its inputs, or "
        "with the recurrent operations LSTM, GRU or RNN."
    )
