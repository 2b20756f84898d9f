from pathlib import Path

import numpy as np
import pytest

from edgepack.cache import Cache
from edgepack.errors import ConversionError, ModelError
from edgepack.evaluate import run_model
from edgepack.importers import ImportOptions, SourceFormat, check_parity, import_model
from edgepack.importers.interface import rename_interface
from edgepack.importers.workers.exchange import RefusedError, fix_shapes
from edgepack.model import load_model, read_model

_DIGITS = Path(__file__).parent / "data" / "digits.tflite"
_DIGITS_INT8 = Path(__file__).parent / "data" / "digits_int8.tflite"


def test_renaming_changes_names_and_nothing_that_is_computed() -> None:
    model = load_model(_DIGITS)
    (old_in,), (old_out,) = model.signature.inputs, model.signature.outputs
    data = rename_interface(
        model.data, inputs=[(old_in.name, "a/b:0")], outputs=[(old_out.name, "digit")]
    )
    renamed = read_model(data)
    assert renamed.signature.inputs[0].name == "a/b:0"
    assert renamed.signature.outputs[0].name == "digit"
    assert renamed.op_counts == model.op_counts
    feed = (np.linspace(0, 1, 64, dtype=np.float32).reshape(old_in.shape),)
    before, after = run_model(model, [feed]), run_model(renamed, [feed])
    np.testing.assert_array_equal(before[0][0], after[0][0])


def test_renaming_what_is_not_there_is_refused() -> None:
    model = load_model(_DIGITS)
    with pytest.raises(ConversionError, match="expected the converted model to have the inputs x,"):
        rename_interface(model.data, inputs=[("x", "x")], outputs=[])


def test_a_tflite_model_is_imported_as_it_is(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path)
    options = ImportOptions()
    imported = import_model(_DIGITS, options=options, cache=cache, on_progress=pytest.fail)
    assert imported.model.data == _DIGITS.read_bytes()
    assert imported.source.format is SourceFormat.TFLITE
    assert imported.source.converter == "none"
    assert [binding.source for binding in imported.inputs] == list(imported.model.signature.inputs)
    assert not imported.model.is_quantized
    report = check_parity(
        imported, _DIGITS, samples=None, options=options, cache=cache, on_progress=pytest.fail
    )
    assert report.outputs == ()
    assert report.reference == "itself"


def test_a_quantized_tflite_model_is_known_as_one(tmp_path: Path) -> None:
    imported = import_model(
        _DIGITS_INT8, options=ImportOptions(), cache=Cache(root=tmp_path), on_progress=pytest.fail
    )
    assert imported.model.is_quantized


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ImportOptions(signature="serve"), "a .tflite model is run by its main signature"),
        (ImportOptions(input_shapes=(("x", (1, 2)),)), "a .tflite model is converted already"),
    ],
)
def test_options_of_other_formats_are_refused(
    tmp_path: Path, options: ImportOptions, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        import_model(_DIGITS, options=options, cache=Cache(root=tmp_path), on_progress=pytest.fail)
    assert caught.value.remedy == (
        "Convert its source again with these options, or leave them out."
    )


def test_shapes_are_the_users_or_the_sources_with_a_batch_of_one() -> None:
    sources = [("x", ("N", 3, "H", None)), ("ids", (None, 7)), ("scale", ())]
    assert fix_shapes(sources, {"x": [1, 3, 8, 9]}) == [(1, 3, 8, 9), (1, 7), ()]


def test_every_open_dimension_and_wrong_flag_is_named_at_once() -> None:
    sources = [("x", ("N", 3, "H", None)), ("z", (1, 4)), ("y", (None, "T"))]
    with pytest.raises(RefusedError) as caught:
        fix_shapes(sources, {"q": [1], "z": [1, 5]})
    assert caught.value.answer == {
        "kind": "model",
        "message": "expected fixed input shapes, but --input-shape q: there is no such input; "
        "known: x, z, y; --input-shape z=1,5: the model has 1,4; "
        "input 'x' of shape N,3,H,? leaves open dimension 2 (H), dimension 3; "
        "input 'y' of shape ?,T leaves open dimension 1 (T)",
        "remedy": "Give --input-shape x=1,3,?,? --dim T=? with a number for each '?'.",
    }
