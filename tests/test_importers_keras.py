import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgepack.cache import Cache
from edgepack.errors import ConversionError, ModelError
from edgepack.evaluate import run_model
from edgepack.importers import check_parity, import_model
from edgepack.model import TensorSpec
from edgepack.toolchains import Toolchain
from tests.fixtures.importers import GetOptions

pytestmark = pytest.mark.toolchain


def _ignore(_line: str) -> None:
    pass


def _names(specs: tuple[TensorSpec, ...]) -> list[str]:
    return [spec.name for spec in specs]


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "reference"),
    [
        ("two.keras", ["zebra", "apple"], ["score", "features"], "Keras"),
        ("legacy.h5", ["x"], ["dense"], "Keras"),
        ("two_saved", ["apple", "zebra"], ["output_0", "output_1"], "TensorFlow"),
    ],
)
def test_keras_and_saved_models_keep_names_and_order(  # noqa: PLR0917 - pytest passes by name
    keras_models: Path,
    tensorflow_options: GetOptions,
    import_cache: Cache,
    name: str,
    inputs: list[str],
    outputs: list[str],
    reference: str,
) -> None:
    path = keras_models / name
    options = tensorflow_options()
    imported = import_model(path, options=options, cache=import_cache, on_progress=_ignore)
    signature = imported.model.signature
    assert _names(signature.inputs) == inputs
    assert _names(signature.outputs) == outputs
    assert {each.shape[0] for each in (*signature.inputs, *signature.outputs)} == {1}
    assert {each.dtype for each in signature.inputs if each.name == "apple"} <= {"int32"}
    assert not imported.model.has_state  # READ_VARIABLE ops keep XNNPACK away
    report = check_parity(
        imported, path, samples=None, options=options, cache=import_cache, on_progress=_ignore
    )
    assert report.reference == reference
    assert [each.output for each in report.outputs] == outputs
    assert min(each.sqnr_db for each in report.outputs) > 100


@pytest.mark.parametrize(
    ("name", "message", "remedy"),
    [
        (
            "lambda.h5",
            "lambda.h5: it holds Lambda layers, which are code .*: sneaky",
            "--trust-model",
        ),
        ("custom.keras", "custom.keras: it uses Doubled", "--toolchain-python PATH"),
        ("open.keras", "dimension 1, dimension 2", "--input-shape image=1,?,?,3"),
        ("read", "run Python or reach files or the network: ReadFile", "--trust-model"),
        ("write", "run Python or reach files or the network: SaveV2", "--trust-model"),
        ("several", "it has several signatures: det, twice", "--signature NAME"),
    ],
)
def test_what_a_file_must_not_do_or_leaves_open_is_refused(  # noqa: PLR0917 - pytest passes by name
    keras_models: Path,
    tensorflow_options: GetOptions,
    import_cache: Cache,
    name: str,
    message: str,
    remedy: str,
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        import_model(
            keras_models / name,
            options=tensorflow_options(),
            cache=import_cache,
            on_progress=_ignore,
        )
    assert remedy in caught.value.remedy
    assert not (keras_models / "stolen.index").exists()


def test_a_trusted_lambda_and_a_chosen_signature_are_converted(
    keras_models: Path, tensorflow_options: GetOptions, import_cache: Cache
) -> None:
    trusted = import_model(
        keras_models / "lambda.h5",
        options=tensorflow_options(trust_model=True),
        cache=import_cache,
        on_progress=_ignore,
    )
    assert _names(trusted.model.signature.outputs) == ["sneaky"]
    chosen = import_model(
        keras_models / "several",
        options=tensorflow_options(signature="twice"),
        cache=import_cache,
        on_progress=_ignore,
    )
    assert _names(chosen.model.signature.outputs) == ["y"]


def test_operations_tflite_lacks_are_named_and_the_log_is_kept(
    keras_models: Path,
    tensorflow_options: GetOptions,
    import_cache: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConversionError) as caught:
        import_model(
            keras_models / "unsupported",
            options=tensorflow_options(),
            cache=import_cache,
            on_progress=_ignore,
        )
    assert caught.value.message == (
        "TFLite has no kernel for tf.MatrixDeterminant (in MatrixDeterminant)"
    )
    (log,) = (tmp_path / "edgepack" / "logs").iterdir()
    assert log.name.startswith("convert-tflite-converter-unsupported-")
    assert str(log) in caught.value.remedy
    assert "MatrixDeterminant" in log.read_text()


_SCALED = """
import keras

@keras.saving.register_keras_serializable(package="mine")
class Scaled(keras.layers.Layer):
    def call(self, inputs):
        return inputs * FACTOR
"""


def test_a_layer_of_the_users_own_that_was_mended_is_converted_anew(
    tensorflow_toolchain: Toolchain,
    tensorflow_options: GetOptions,
    import_cache: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    layers, path = tmp_path / "scaled_layers.py", tmp_path / "scaled.keras"
    options = tensorflow_options(trust_model=True)
    answers: list[float] = []
    for factor in ("2.0", "3.0"):
        layers.write_text(_SCALED.replace("FACTOR", factor))
        if not path.exists():
            make = (
                "import keras, scaled_layers\n"
                "keras.Sequential([keras.Input((2,)), scaled_layers.Scaled()]).save('scaled.keras')"
            )
            subprocess.run(
                [tensorflow_toolchain.python, "-c", make],
                cwd=tmp_path,
                check=True,
                capture_output=True,
                timeout=120,
            )
        imported = import_model(path, options=options, cache=import_cache, on_progress=_ignore)
        outputs = run_model(imported.model, [(np.ones((1, 2), np.float32),)])
        answers.append(float(outputs[0][0][0, 0]))
    assert answers == [2.0, 3.0]
