import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgepack.cache import Cache
from edgepack.errors import ParityError
from edgepack.importers import Converter, departure, import_model, import_verified
from edgepack.importers.conversion import Conversion, Translation, translate
from edgepack.importers.convert import open_conversion
from edgepack.importers.departure import (
    Departure,
    NoDeparture,
    TensorStatistics,
    describe_values,
    find_departure,
)
from edgepack.importers.trials import pick_trial
from edgepack.model import TensorSpec
from tests.fixtures.importers import GetOptions, save_onnx, weights_of


def _ignore(_line: str) -> None:
    pass


def _no_samples(_specs: tuple[TensorSpec, ...]) -> None:
    return None


def _network(path: Path, *, factor: float = 1.0) -> Path:
    """Write two branches that meet; `factor` spoils one weight of the second convolution."""
    second = weights_of(4, 4, 3, 3)
    second[2] *= factor
    return save_onnx(
        path,
        [
            helper.make_node("Conv", ["x", "w1"], ["c1"], name="/conv1", pads=[1] * 4),
            helper.make_node("Relu", ["c1"], ["r1"], name="/relu1"),
            helper.make_node("Conv", ["r1", "w2"], ["c2"], name="/conv2", pads=[1] * 4),
            helper.make_node("Sigmoid", ["c2"], ["s2"], name="/sigmoid"),
            helper.make_node("MaxPool", ["r1"], ["p1"], name="/pool", kernel_shape=[2, 2]),
            helper.make_node("Mul", ["r1", "s2"], ["m"], name="/gate"),
            helper.make_node("GlobalAveragePool", ["m"], ["g"], name="/mean"),
            helper.make_node("GlobalAveragePool", ["p1"], ["h"], name="/other"),
            helper.make_node("Concat", ["g", "h"], ["y"], name="/join", axis=1),
        ],
        inputs={"x": (TensorProto.FLOAT, [1, 3, 8, 10])},
        outputs={"y": (TensorProto.FLOAT, [1, 8, 1, 1])},
        weights={"w1": weights_of(4, 3, 3, 3), "w2": second},
    )


def test_statistics_are_of_the_finite_values() -> None:
    values = np.array([1.0, 2.0, np.nan, 3.0, -np.inf], np.float32)
    assert describe_values([values]).describe() == (
        "min 1, max 3, mean 2, std 0.8165, 40.0% not finite"
    )
    assert describe_values([np.zeros((0,), np.float32)]).non_finite_share == 0
    assert describe_values([np.full(3, np.nan)]).describe().endswith(", 100.0% not finite")


def test_a_departure_says_what_was_seen() -> None:
    source = TensorStatistics(minimum=-1.5, maximum=2, mean=0.25, std=1, non_finite_share=0)
    found = Departure(
        node="/conv3/Conv",
        op="Conv",
        reference=source,
        converted=replace(source, maximum=20.0),
        sqnr_db=-3.21,
        agreeing_db=112.5,
    )
    assert found.describe() == (
        "first node whose output departs: /conv3/Conv (Conv)\n"
        "  source: min -1.5, max 2, mean 0.25, std 1\n"
        "  converted: min -1.5, max 20, mean 0.25, std 1\n"
        "  SQNR -3.2 dB; the nodes before it still agree at 112.5 dB"
    )
    first = replace(found, agreeing_db=None, num_skipped=2)
    assert first.describe().endswith(
        "; nothing stands before it, but for 2 that could not be looked at"
    )


@pytest.mark.toolchain
def test_the_node_whose_weight_a_converter_spoils_is_named(
    tmp_path: Path,
    onnx_options: GetOptions,
    import_cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The converter is led to a file of the same graph with one weight of another sign."""
    path, spoiled = _network(tmp_path / "net.onnx"), _network(tmp_path / "bad.onnx", factor=-1.0)
    options = onnx_options()
    rounds: list[int] = []

    def spoil(conversion: Conversion, *, expose: Sequence[str] | None = None) -> Translation:
        rounds.append(len(expose or ()))
        return translate(replace(conversion, path=spoiled), expose=expose)

    monkeypatch.setattr(departure, "translate", spoil)
    monkeypatch.setattr(departure, "_MOST_EXPOSED", 4)
    imported = import_model(path, options=options, cache=import_cache, on_progress=_ignore)
    conversion = open_conversion(path, options=options, on_progress=_ignore, converter=None)
    trial = pick_trial((imported.inputs[0].source,), {}, samples=None, seed=20, sample=0, most=2)
    found = find_departure(conversion, imported, trial=trial, minimum_db=60, on_progress=_ignore)
    assert isinstance(found, Departure)
    assert (found.node, found.op) == ("/conv2", "Conv")
    assert found.sqnr_db < 10
    assert found.agreeing_db is not None
    assert found.agreeing_db > 100
    assert found.num_skipped == 0
    assert found.reference != found.converted
    assert max(rounds) == 4

    def forget(conversion: Conversion, *, expose: Sequence[str] | None = None) -> Translation:
        found = translate(conversion, expose=expose)
        signature = replace(found.model.signature, inputs=())
        return replace(found, model=replace(found.model, signature=signature))

    monkeypatch.setattr(departure, "translate", forget)
    monkeypatch.setattr(departure, "_MOST_FAULTS", 1)
    unbound = find_departure(conversion, imported, trial=trial, minimum_db=60, on_progress=_ignore)
    assert unbound == NoDeparture(
        reason="no node could be looked at: expected a model of 1 inputs, but with its nodes "
        "exposed it has 0"
    )

    monkeypatch.setattr(departure, "translate", translate)
    right = find_departure(conversion, imported, trial=trial, minimum_db=60, on_progress=_ignore)
    assert isinstance(right, NoDeparture)
    assert "agrees when its output is kept, so the fault lies in how" in right.describe()


@pytest.mark.toolchain
def test_a_converters_real_fault_is_refused_with_its_node(
    tmp_path: Path, onnx_options: GetOptions, import_cache: Cache
) -> None:
    """onnx2tf 2.6.9 takes the exponential of large sums, which overflows from 89 on."""
    path = save_onnx(
        tmp_path / "energy.onnx",
        [
            helper.make_node("MatMul", ["x", "w"], ["m"], name="/score"),
            helper.make_node("ReduceLogSumExp", ["m"], ["e"], name="/energy", axes=[1]),
            helper.make_node("Neg", ["e"], ["y"], name="/sign"),
        ],
        inputs={"x": (TensorProto.FLOAT, [1, 16])},
        outputs={"y": (TensorProto.FLOAT, [1, 1])},
        weights={"w": np.abs(weights_of(16, 8)) * 20},
    )
    options = replace(onnx_options(), converter=Converter.ONNX2TF)
    with pytest.raises(ParityError) as caught:
        import_verified(
            path,
            options=options,
            read_samples=_no_samples,
            minimum_db=60,
            cache=import_cache,
            on_progress=_ignore,
        )
    assert "onnx2tf: first node whose output departs: /energy (ReduceLogSumExp)" in (
        caught.value.message
    )
    # The logarithm of the largest float32; or infinite where XNNPACK's exponential does not stop
    # there, as with AVX-512.
    assert re.search(r"\n  converted: min .*(, max 88\.38, |% not finite)", caught.value.message)
