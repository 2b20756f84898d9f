from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepack.cache import Cache
from edgepack.data.samples import make_samples
from edgepack.errors import ConversionError, DataError, ModelError, ParityError
from edgepack.fidelity import Judgement
from edgepack.importers import TensorBinding, check_parity, import_model
from tests.fixtures.importers import GetOptions, save_onnx, weights_of

pytestmark = pytest.mark.toolchain


def _ignore(_line: str) -> None:
    pass


def test_names_order_integers_and_layouts_are_the_sources(
    several_onnx: Path, onnx_options: GetOptions, import_cache: Cache
) -> None:
    options = onnx_options()
    imported = import_model(several_onnx, options=options, cache=import_cache, on_progress=_ignore)
    signature = imported.model.signature
    assert [(each.name, each.dtype, each.shape) for each in signature.inputs] == [
        ("vector", "float32", (1, 6)),
        ("ids", "int64", (1, 7)),
        ("image", "float32", (1, 8, 6, 3)),
    ]
    assert [each.name for each in signature.outputs] == ["score", "feature:0"]
    assert [each.permutation for each in imported.inputs] == [None, None, (0, 2, 3, 1)]
    assert [each.source.shape for each in imported.outputs] == [(1, 4), (1, 5, 8, 6)]
    assert imported.source.converter == "onnx2tf"
    assert not imported.model.is_quantized
    report = check_parity(
        imported, several_onnx, samples=None, options=options, cache=import_cache,
        on_progress=_ignore,
    )  # fmt: skip
    assert report.generated
    assert report.reference == "ONNX Runtime"
    assert [each.output for each in report.outputs] == ["score", "feature:0"]
    assert min(each.sqnr_db for each in report.outputs) > 100

    lines: list[str] = []
    again = import_model(
        several_onnx, options=options, cache=import_cache, on_progress=lines.append
    )
    assert again == imported
    assert not [line for line in lines if "converting" in line]


def test_a_layout_that_shapes_do_not_tell_is_found_by_running(
    cubic_onnx: Path, onnx_options: GetOptions, import_cache: Cache
) -> None:
    options = onnx_options()
    imported = import_model(cubic_onnx, options=options, cache=import_cache, on_progress=_ignore)
    samples = make_samples([("x", weights_of(20, 1, 3, 3, 3))])

    report = check_parity(
        imported, cubic_onnx, samples=samples, options=options, cache=import_cache,
        on_progress=_ignore,
    )  # fmt: skip
    assert report.num_samples == 16
    assert not report.generated
    assert report.outputs[0].sqnr_db > 100

    # The wrong layout has the same shapes, and is refused with the figures.
    assert imported.inputs[0].permutation == (0, 2, 3, 1)
    wrong = replace(imported, inputs=(TensorBinding(source=imported.inputs[0].source),))
    with pytest.raises(ParityError) as caught:
        check_parity(
            wrong, cubic_onnx, samples=samples, options=options, cache=import_cache,
            on_progress=_ignore,
        )  # fmt: skip
    assert "expected at least 60 dB between ONNX Runtime and the" in caught.value.message
    assert "y: SQNR " in caught.value.message
    assert "--allow-parity " in caught.value.remedy
    allowed = int(caught.value.remedy.split("--allow-parity ")[1].split("`")[0])
    report = check_parity(
        wrong, cubic_onnx, samples=samples, minimum_db=allowed, options=options,
        cache=import_cache, on_progress=_ignore,
    )  # fmt: skip
    assert report.minimum_db == allowed
    assert report.outputs[0].sqnr_db < 60


def test_outputs_of_nothing_but_zeros_pass(
    tmp_path: Path, onnx_options: GetOptions, import_cache: Cache
) -> None:
    path = save_onnx(
        tmp_path / "zeros.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs={"x": (TensorProto.FLOAT, [1, 4])},
        outputs={"y": (TensorProto.FLOAT, [1, 3])},
        weights={"w": np.zeros((4, 3), np.float32)},
    )
    options = onnx_options()
    imported = import_model(path, options=options, cache=import_cache, on_progress=_ignore)
    report = check_parity(
        imported, path, samples=None, options=options, cache=import_cache, on_progress=_ignore
    )
    assert report.outputs[0].judgement is Judgement.CONSTANT


def _detector(folder: Path, name: str, scale: float) -> Path:
    """Write a model of two large values and a small one, which `scale` decides."""
    weights = weights_of(4, 3)
    weights[:, 2] *= scale
    return save_onnx(
        folder / f"{name}.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs={"x": (TensorProto.FLOAT, [1, 4])},
        outputs={"y": (TensorProto.FLOAT, [1, 3])},
        weights={"w": weights},
    )


def test_a_wrong_small_value_beside_right_large_ones_is_refused(
    tmp_path: Path, onnx_options: GetOptions, import_cache: Cache
) -> None:
    options = onnx_options()
    path, other = _detector(tmp_path, "right", 1e-4), _detector(tmp_path, "wrong", -1e-4)
    right, wrong = (
        import_model(each, options=options, cache=import_cache, on_progress=_ignore)
        for each in (path, other)
    )
    with pytest.raises(ParityError) as caught:
        check_parity(
            replace(right, model=wrong.model), path, samples=None, options=options,
            cache=import_cache, on_progress=_ignore,
        )  # fmt: skip
    assert "index 2 of axis 1 has -6.0 dB (seed 22)  <- too far" in caught.value.message
    assert "--allow-parity 33" in caught.value.remedy
    report = check_parity(
        replace(right, model=wrong.model), path, samples=None, minimum_db=33, options=options,
        cache=import_cache, on_progress=_ignore,
    )  # fmt: skip
    assert report.outputs[0].sqnr_db > 60


def test_small_outputs_of_large_inputs_are_compared(
    tmp_path: Path, onnx_options: GetOptions, import_cache: Cache
) -> None:
    paths = [
        save_onnx(
            tmp_path / f"{name}.onnx",
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            inputs={"x": (TensorProto.FLOAT, [1, 4])},
            outputs={"y": (TensorProto.FLOAT, [1, 3])},
            weights={"w": weights},
        )
        for name, weights in (("small", weights_of(4, 3) * 1e-9), ("none", weights_of(4, 3) * 0))
    ]
    options = onnx_options()
    right, wrong = (
        import_model(path, options=options, cache=import_cache, on_progress=_ignore)
        for path in paths
    )
    # Samples of sound, say: 16-bit numbers in float.
    samples = make_samples([("x", weights_of(4, 1, 4) * 32768)])
    with pytest.raises(ParityError, match=r"y: SQNR 0\.0 dB"):
        check_parity(
            replace(right, model=wrong.model), paths[0], samples=samples, options=options,
            cache=import_cache, on_progress=_ignore,
        )  # fmt: skip


def test_a_source_that_gives_no_number_proves_nothing(
    tmp_path: Path, onnx_options: GetOptions, import_cache: Cache
) -> None:
    path = save_onnx(
        tmp_path / "log.onnx",
        [helper.make_node("Sub", ["x", "hundred"], ["d"]), helper.make_node("Log", ["d"], ["y"])],
        inputs={"x": (TensorProto.FLOAT, [1, 4])},
        outputs={"y": (TensorProto.FLOAT, [1, 4])},
        weights={"hundred": np.full((1, 4), 100, np.float32)},
    )
    options = onnx_options()
    imported = import_model(path, options=options, cache=import_cache, on_progress=_ignore)
    with pytest.raises(ParityError, match="y: no finite value to compare") as caught:
        check_parity(
            imported, path, samples=None, options=options, cache=import_cache, on_progress=_ignore
        )
    assert "Give real samples with --data" in caught.value.remedy
    samples = make_samples([("x", np.full((2, 1, 4), 150, np.float32))])
    check_parity(
        imported, path, samples=samples, options=options, cache=import_cache, on_progress=_ignore
    )


def test_open_dimensions_are_named_with_the_flag_and_fixed_by_it(
    tmp_path: Path, onnx_options: GetOptions, import_cache: Cache
) -> None:
    path = save_onnx(
        tmp_path / "open.onnx",
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        inputs={"x": (TensorProto.FLOAT, ["N", 3, "height", "width"])},
        outputs={"y": (TensorProto.FLOAT, ["N", 2, "height", "width"])},
        weights={"w": weights_of(2, 3, 1, 1)},
    )
    with pytest.raises(ModelError) as caught:
        import_model(path, options=onnx_options(), cache=import_cache, on_progress=_ignore)
    assert caught.value.message == (
        "expected fixed input shapes, but input 'x' of shape N,3,height,width leaves open "
        "dimension 2 (height), dimension 3 (width)"
    )
    assert caught.value.remedy == "Give --dim height=? --dim width=? with a number for each '?'."
    imported = import_model(
        path,
        options=onnx_options(input_shapes=(("x", (1, 3, 6, 10)),)),
        cache=import_cache,
        on_progress=_ignore,
    )
    assert imported.outputs[0].source.shape == (1, 2, 6, 10)
    assert imported.model.signature.outputs[0].shape == (1, 6, 10, 2)


@pytest.mark.parametrize(
    ("node", "domain", "shape", "message"),
    [
        (
            helper.make_node("Det", ["r"], ["y"], name="area"),
            "",
            [1],
            (
                "onnx2tf cannot convert Det 'area': Det builtin lowering currently supports static "
                "square 2x2/3x3 matrices only"
            ),
        ),
        (
            helper.make_node("Frobnicate", ["r"], ["y"], domain="acme"),
            "acme",
            [1, 4, 4],
            "which TFLite has no kernel for: acme:Frobnicate 'y'",
        ),
    ],
)
def test_an_operation_without_a_kernel_is_named(  # noqa: PLR0917 - pytest passes by name
    tmp_path: Path,
    onnx_options: GetOptions,
    import_cache: Cache,
    node: onnx.NodeProto,
    domain: str,
    shape: list[int | str],
    message: str,
) -> None:
    path = save_onnx(
        tmp_path / "unsupported.onnx",
        [helper.make_node("Relu", ["x"], ["r"]), node],
        inputs={"x": (TensorProto.FLOAT, [1, 4, 4])},
        outputs={"y": (TensorProto.FLOAT, shape)},
        domain=domain,
    )
    with pytest.raises(ModelError if domain else ConversionError) as caught:
        import_model(path, options=onnx_options(), cache=import_cache, on_progress=_ignore)
    assert message in caught.value.message
    assert "replace" in caught.value.remedy.lower()


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin"])
def test_external_data_stays_in_the_models_folder(
    tmp_path: Path, onnx_options: GetOptions, import_cache: Cache, location: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = save_onnx(
        folder / "external.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs={"x": (TensorProto.FLOAT, [1, 4])},
        outputs={"y": (TensorProto.FLOAT, [1, 3])},
        weights={"w": np.zeros((4, 3), np.float32)},
    )
    model = onnx.load(str(path))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        import_model(path, options=onnx_options(), cache=import_cache, on_progress=_ignore)
    assert f"but 1 of its tensors lie outside: 'w' in {location!r}" in caught.value.message
    assert "--trust-model" in caught.value.remedy


def test_samples_of_another_shape_are_refused_before_anything_runs(
    several_onnx: Path, onnx_options: GetOptions, import_cache: Cache
) -> None:
    options = onnx_options()
    imported = import_model(several_onnx, options=options, cache=import_cache, on_progress=_ignore)
    samples = make_samples([("vector", weights_of(2, 1, 5))])
    with pytest.raises(DataError, match=r"samples of shape \(2, 1, 6\) for input 'vector'"):
        check_parity(
            imported, several_onnx, samples=samples, options=options, cache=import_cache,
            on_progress=_ignore,
        )  # fmt: skip
