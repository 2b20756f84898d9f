from pathlib import Path

import pytest

from tests.fixtures.keras_sources import AskTensorflow, make_request

pytestmark = pytest.mark.toolchain

_NOT_KERAS = ", which is not Keras' own code"
_EXPECTED = {
    "code.keras": "code.keras: it holds Lambda layers, which are code that runs on loading: sneaky",
    "system.keras": f"system.keras: it uses function of module os{_NOT_KERAS}",
    "fetch.keras": (
        f"fetch.keras: it uses the function get_file of module keras.utils{_NOT_KERAS}"
    ),
    "eval.keras": f"eval.keras: it uses Python's eval{_NOT_KERAS}",
    "reader.h5": (
        "reader.h5: it uses a TFOpLambda layer with {'name': 'tf.io.read_file', 'trainable': "
        f"True, 'dtype': 'float32', 'function': 'io.read_file'}}{_NOT_KERAS}"
    ),
    "method.h5": (
        "method.h5: it uses a ClassMethod layer with {'name': 'tf.io.gfile.GFile', 'trainable': "
        f"True, 'dtype': 'float32', 'function': 'io.gfile.GFile'}}{_NOT_KERAS}"
    ),
    "deep.keras": (
        "deep.keras: its configuration cannot be read: maximum recursion depth exceeded while "
        "decoding a JSON array from a unicode string"
    ),
    "linked.h5": (
        "linked.h5: expected all of linked.h5 to be in the file, but it takes values from other "
        "files: 'model_weights/stolen' (a link)"
    ),
    "inner.keras": (
        "inner.keras: expected all of model.weights.h5 to be in the file, but it takes values "
        "from other files: 'model_weights/stolen' (a link)"
    ),
    "outside.h5": (
        "outside.h5: expected all of outside.h5 to be in the file, but it takes values from other "
        "files: 'stolen' (a dataset)"
    ),
    "virtual.h5": (
        "virtual.h5: expected all of virtual.h5 to be in the file, but it takes values from other "
        "files: 'stolen' (a dataset)"
    ),
    "own.keras": "own.keras: it uses Twice, which Keras does not know",
    "text.keras": "expected inputs of numbers, but these are not: 'x' (string)",
    "reading.pb": (
        "reading.pb: its graph holds operations that run Python or reach files or the network: "
        "ReadFile"
    ),
    "thief": (
        "thief: its graph holds operations that run Python or reach files or the network: RestoreV2"
    ),
    "ragged": ("ragged: expected inputs of whole tensors, but these are not: 'rows' (ragged)"),
    "cubic.keras": (
        "TFLite has no kernel for tf.ResizeBicubic (in cubic/zoom/resize/ResizeBicubic)"
    ),
}


def test_what_a_file_must_not_do_is_refused_before_it_does_it(
    keras_sources: Path, ask_tensorflow: AskTensorflow, tmp_path: Path
) -> None:
    answers = ask_tensorflow(
        [make_request("convert", keras_sources / name, tmp_path / name) for name in _EXPECTED]
    )
    messages = {name: each.get("message") for name, each in zip(_EXPECTED, answers, strict=True)}
    assert messages == _EXPECTED
    remedies = {name: each["remedy"] for name, each in zip(_EXPECTED, answers, strict=True)}
    assert "--trust-model" in remedies["code.keras"]
    assert "--with FILE.py" in remedies["own.keras"]


def test_files_that_swell_are_refused(
    keras_sources: Path, ask_tensorflow: AskTensorflow, tmp_path: Path
) -> None:
    names = ("bomb.keras", "claims.h5")
    answers = ask_tensorflow(
        [make_request("convert", keras_sources / name, tmp_path / name) for name in names]
    )
    for name, answer in zip(names, answers, strict=True):
        num_bytes = (keras_sources / name).stat().st_size
        assert f"expected at most 100 times its {num_bytes} bytes in it" in answer["message"]


_BROKEN = """
import keras

def build():
    raise ValueError("no such\\nthing")

build()
"""


def test_a_fault_in_the_users_own_file_is_told_by_its_place(
    keras_sources: Path, ask_tensorflow: AskTensorflow, tmp_path: Path
) -> None:
    broken, unfinished = tmp_path / "broken_layers.py", tmp_path / "unfinished_layers.py"
    broken.write_text(_BROKEN)
    unfinished.write_text("x = 1\ndef f(:\n")
    own = tmp_path / "own_layers.py"
    own.write_text("x = 1\n")
    model = keras_sources / "own.keras"
    answers = ask_tensorflow(
        [
            make_request("convert", model, tmp_path / "a", with_files=[str(broken)]),
            make_request("convert", model, tmp_path / "b", with_files=[str(unfinished)]),
            # Consent to the file is none to code inside the model.
            make_request(
                "convert", keras_sources / "code.keras", tmp_path / "c", with_files=[str(own)]
            ),
        ]
    )
    assert [each["message"] for each in answers] == [
        "--with broken_layers.py: broken_layers.py:5: ValueError: no such",
        (
            "--with unfinished_layers.py: unfinished_layers.py:2: SyntaxError: invalid syntax "
            "(unfinished_layers.py, line 2)"
        ),
        _EXPECTED["code.keras"],
    ]
