"""What a converter wrote is judged as the converter's, whatever is wrong with it."""

from pathlib import Path

import pytest

from edgepack.errors import ConversionError
from edgepack.importers import Converter, ImportOptions, SourceFormat
from edgepack.importers.conversion import Conversion, translate
from edgepack.importers.worker import SourceWorker
from edgepack.toolchains import Toolchain
from tests.fixtures.toolchains import WriteWorker


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("b'TFL3'", "expected a TFLite flatbuffer (identifier 'TFL3' at byte 4), but got"),
        ("b'\\x1c\\0\\0\\0TFL3' + bytes(24)", "expected a"),
        (None, "model.tflite: cannot be read: No such file"),
    ],
)
def test_a_damaged_model_is_the_converters_failure(
    tmp_path: Path,
    own_toolchain: Toolchain,
    write_worker: WriteWorker,
    written: str | None,
    message: str,
) -> None:
    writing = f"open('model.tflite', 'wb').write({written}); " if written else ""
    spec = "[{'name': 'x', 'shape': [1], 'dtype': 'float32'}]"
    script = write_worker(f"{writing}answer({{'ok': {{'inputs': {spec}, 'outputs': {spec}}}}})")
    worker = SourceWorker(script=script, toolchain=own_toolchain, title="the converter")
    conversion = Conversion(
        path=tmp_path / "m.onnx",
        source_format=SourceFormat.ONNX,
        sha256="0" * 64,
        converter=Converter.ONNX2TF,
        worker=worker,
        reference=worker,
        options=ImportOptions(),
    )
    with pytest.raises(ConversionError) as caught:
        translate(conversion)
    assert "what the converter wrote cannot be read: " in caught.value.message
    assert message in caught.value.message
