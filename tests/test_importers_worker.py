"""What importers make of what workers write and die of; they are written on the spot."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgepack.cache import cache_directory
from edgepack.errors import ModelError, ToolchainError
from edgepack.importers import ImportOptions, SourceFormat
from edgepack.importers.worker import SourceWorker, run_source
from edgepack.toolchains import Toolchain
from tests.fixtures.toolchains import WriteWorker

RunProbe = Callable[..., object]


@pytest.fixture
def run_probe(
    own_toolchain: Toolchain,
    write_worker: WriteWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> RunProbe:
    """Give a function that runs a model by a worker of the given body."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(
        body: str, *, num_outputs: int = 2, model: str = "model.onnx", **options: object
    ) -> object:
        worker = SourceWorker(
            script=write_worker(body), toolchain=own_toolchain, title="the framework"
        )
        return run_source(
            worker,
            tmp_path / model,
            SourceFormat.ONNX,
            ImportOptions(**options),  # type: ignore[arg-type]
            inputs=[np.zeros((3, 1, 4), np.float32)],
            num_outputs=num_outputs,
        )

    return run


def test_outputs_come_by_sample(run_probe: RunProbe) -> None:
    body = (
        "import numpy as np\n"
        "x = np.load('inputs.npz')['0']\n"
        "np.savez('outputs.npz', **{'0': x + 1, '1': x.sum(axis=2)}); answer({'ok': {}})"
    )
    outputs = run_probe(body)
    assert isinstance(outputs, tuple)
    assert [[array.shape for array in sample] for sample in outputs] == [[(1, 4), (1,)]] * 3


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{'0': x, '1': x[:2]}", "there are 3, 2$"),
        ("{'0': x, '1': np.float32(1)}", "there are 3, 0$"),
        ("{'0': x}", "reading them failed: '1'$"),
        ("{'0': x, '1': np.array([{}])}", "expected numbers, but got Python objects"),
    ],
)
def test_other_outputs_are_refused(run_probe: RunProbe, written: str, message: str) -> None:
    body = (
        "import numpy as np\n"
        "x = np.load('inputs.npz')['0']\n"
        f"np.savez('outputs.npz', **{written}); answer({{'ok': {{}}}})"
    )
    with pytest.raises(ModelError) as caught:
        run_probe(body)
    assert re.search(message, caught.value.message)


def test_a_link_in_the_outputs_place_is_not_followed(run_probe: RunProbe, tmp_path: Path) -> None:
    np.savez(tmp_path / "secret.npz", **{"0": np.zeros(3), "1": np.zeros(3)})  # type: ignore[arg-type] # numpy types it as bool
    body = f"os.symlink({str(tmp_path / 'secret.npz')!r}, 'outputs.npz'); answer({{'ok': {{}}}})"
    with pytest.raises(ModelError, match="cannot be read"):
        run_probe(body)


def test_the_full_log_is_kept_bounded_and_named(run_probe: RunProbe) -> None:
    body = "print('first'); print('y' * (20 << 20)); print('last', flush=True); os.abort()"
    with pytest.raises(ToolchainError) as caught:
        run_probe(body)
    (log,) = (cache_directory() / "logs").iterdir()
    assert re.fullmatch(r"run-model\.onnx-[0-9a-f]{8}\.log", log.name)
    assert caught.value.remedy.endswith(f" Full log: {log}")
    text = log.read_text()
    assert text.startswith("first\n")
    assert "bytes left out]" in text
    assert "\nlast\n" in text
    assert len(text) < 10 << 20


def test_models_of_one_name_keep_logs_of_their_own(run_probe: RunProbe) -> None:
    for model in ("one/model.onnx", "two/model.onnx", "two/model.onnx"):
        with pytest.raises(ToolchainError):
            run_probe(f"print('{model}', flush=True); os.abort()", model=model)
    logs = (cache_directory() / "logs").iterdir()
    firsts = sorted(log.read_text().splitlines()[0] for log in logs)
    assert firsts == ["one/model.onnx", "two/model.onnx"]


def test_a_refusal_names_a_log_only_when_there_is_more_to_read(run_probe: RunProbe) -> None:
    refuse = "answer({'error': {'kind': 'model', 'message': 'open shapes', 'remedy': 'Fix.'}})"
    with pytest.raises(ModelError) as caught:
        run_probe(f"print('loading'); {refuse}")
    assert caught.value.remedy == "Fix."
    with pytest.raises(ModelError) as caught:
        run_probe("try: 1 / 0\nexcept OSError: pass\nfinally: " + refuse)
    assert re.fullmatch(r"Fix\. Full log: .+/run-model\.onnx-[0-9a-f]{8}\.log", caught.value.remedy)


def test_the_users_limits_hold(run_probe: RunProbe) -> None:
    with pytest.raises(ToolchainError, match=r"its limit is 150 MiB"):
        run_probe("held = bytearray(200 << 20); signal.pause()", memory_bytes=150 << 20)
    with pytest.raises(ToolchainError, match=r"its limit is 150 MiB:\n  MemoryError"):
        run_probe("bytearray(900 << 20)", memory_bytes=150 << 20)
    with pytest.raises(ToolchainError, match=r"did not answer within 1 s"):
        run_probe("signal.pause()", timeout_seconds=1.0)
