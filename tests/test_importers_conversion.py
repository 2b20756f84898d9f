"""What a converter wrote is judged as the converter's, whatever is wrong with it."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.cache import Cache
from edgepack.errors import ConversionError
from edgepack.evaluate import Answers, Feeds
from edgepack.importers import Converter, ImportOptions, SourceFormat, parity
from edgepack.importers.conversion import Conversion, translate
from edgepack.importers.worker import SourceWorker
from edgepack.model import Model
from edgepack.toolchains import Toolchain
from tests.fixtures.bundle import digits_model
from tests.fixtures.contract import imported_as
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


def test_a_model_that_fails_where_its_source_does_not_is_not_saved_by_the_tamest_samples(
    tmp_path: Path,
    own_toolchain: Toolchain,
    write_worker: WriteWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = write_worker(
        "import numpy as np\n"
        "x = np.load('inputs.npz')['0']\n"
        "np.savez('outputs.npz', **{'0': np.zeros((len(x), 1, 10), np.float32)})\n"
        "answer({'ok': {}})"
    )
    worker = SourceWorker(script=script, toolchain=own_toolchain, title="the framework")
    tried: list[int] = []

    def run(model: Model, feeds: Feeds) -> Answers:
        tried.append(len(feeds))
        if len(feeds) > 3:  # the sets in wider ranges are among them
            raise ConversionError("the converted model cannot be run: index 9 of 8", remedy="")
        spec = model.signature.outputs[0]
        return tuple((np.zeros(spec.shape, np.float32),) for _ in feeds)

    monkeypatch.setattr(parity, "open_worker", lambda *_, **__: worker)
    monkeypatch.setattr(parity, "run_converted", run)
    with pytest.raises(ConversionError, match="index 9 of 8"):
        parity.check_parity(
            imported_as(digits_model(), source_format=SourceFormat.ONNX),
            tmp_path / "m.onnx",
            samples=None,
            options=ImportOptions(),
            cache=Cache(root=tmp_path / "cache"),
            on_progress=lambda _: None,
        )
    assert tried == [9]
