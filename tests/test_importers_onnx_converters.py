from pathlib import Path

import numpy as np
import onnx
import pytest

from edgepack.cache import Cache
from edgepack.errors import ConversionError
from edgepack.importers import import_model
from edgepack.importers.chain import import_verified
from edgepack.importers.source import Converter, ImportOptions
from tests.fixtures.onnx_corpus import FLOAT, convnet, make, node, weights

pytestmark = pytest.mark.toolchain


def _ignore(_line: str) -> None:
    pass


@pytest.mark.parametrize("converter", [Converter.ONNX2TF_TENSORFLOW, Converter.ONNX_TF])
def test_a_converter_in_its_own_toolchain_gives_the_same_model(
    tmp_path: Path, import_cache: Cache, converter: Converter
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(convnet(17), str(path))
    verified = import_verified(
        path,
        options=ImportOptions(converter=converter),
        read_samples=lambda _inputs: None,
        minimum_db=60,
        cache=import_cache,
        on_progress=_ignore,
    )
    assert [each.converter for each in verified.attempts] == [converter]
    assert [each.source.name for each in verified.imported.inputs] == ["x"]
    assert min(each.sqnr_db for each in verified.parity.outputs) > 100


def test_onnx_tf_names_the_node_it_has_no_form_for(tmp_path: Path, import_cache: Cache) -> None:
    path = tmp_path / "grid.onnx"
    model = make(
        [node("GridSample", ["x", "grid"], ["y"], name="warp")],
        {"x": (FLOAT, [1, 2, 4, 4])},
        {"y": (FLOAT, [1, 2, 3, 3])},
        {"grid": np.tanh(weights(1, 3, 3, 2))},
        opset=16,
    )
    onnx.save(model, str(path))
    with pytest.raises(ConversionError) as caught:
        import_model(
            path,
            options=ImportOptions(converter=Converter.ONNX_TF),
            cache=import_cache,
            on_progress=_ignore,
        )
    assert caught.value.message.startswith("onnx-tf cannot convert GridSample 'warp': ")
    assert caught.value.remedy.startswith("Replace the operation in the source model.")


def test_a_resize_that_onnx2tf_rounds_up_is_taken_from_the_next_converter(
    tmp_path: Path, import_cache: Cache
) -> None:
    path = tmp_path / "resize.onnx"
    model = make(
        [
            node(
                "Resize",
                ["x", "", "scales"],
                ["y"],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ],
        {"x": (FLOAT, [1, 4, 9, 9])},
        {"y": (FLOAT, [1, 4, 13, 13])},
        {"scales": np.array([1, 1, 1.5, 1.5], np.float32)},
    )
    onnx.save(model, str(path))
    verified = import_verified(
        path,
        options=ImportOptions(),
        read_samples=lambda _inputs: None,
        minimum_db=60,
        cache=import_cache,
        on_progress=_ignore,
    )
    first, second = verified.attempts
    assert (first.converter, second.converter) == (
        Converter.ONNX2TF,
        Converter.ONNX2TF_TENSORFLOW,
    )
    assert first.fault is not None
    assert "(1, 14, 14, 4)" in first.fault
    assert second.fault is None
