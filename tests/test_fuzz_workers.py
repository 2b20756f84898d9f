"""Workers meet damaged models: whatever they die of is one error, and nothing is left of them.

Hundreds of mutants for hours are the business of scripts/fuzz-importers; here are a few of each
format, in forks of one process, and some whole imports.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.cache import Cache
from edgepack.importers import Converter, ImportOptions, SourceFormat, import_verified
from edgepack.importers.worker import open_worker
from tests.fixtures.fuzzing import attempt, files_below, make_request, open_fork_server, scratch
from tests.fixtures.importers import GetOptions
from tests.fixtures.mutants import make_mutant

pytestmark = pytest.mark.toolchain
_NUM_MUTANTS = 8
_SECONDS = 60.0
# What a worker may come to: a traceback that nobody foresaw is none of these.
_FORESEEN = {"works", "refused", "died"}


def try_mutants(
    source: Path, source_format: SourceFormat, options: GetOptions, folder: Path
) -> dict[str, int]:
    """Give how many mutants' workers ended in each way; nothing but the folder may change."""
    worker = open_worker(source_format, options=options(), on_progress=lambda _line: None)
    outcomes: dict[str, int] = {}
    with open_fork_server(worker.toolchain, worker.script, folder) as server:
        for seed in range(_NUM_MUTANTS):
            with scratch("mutant-") as room, scratch("work-") as work:
                # Neither beside the model nor above it may anything be written.
                beside = room / "models"
                beside.mkdir()
                mutant = make_mutant(source, beside, seed)
                before = files_below(room)
                request = make_request(mutant, source_format.value, work, "convert")
                trial = server.ask(request, work, seconds=_SECONDS)
                assert files_below(room) == before
                if trial.outcome == "refused":
                    assert trial.answer is not None
                    assert trial.answer["error"]["message"]
                    assert trial.answer["error"]["remedy"]
                outcomes[trial.outcome] = outcomes.get(trial.outcome, 0) + 1
    return outcomes


@pytest.mark.parametrize("name", ["two.keras", "two.h5", "two_saved"])
def test_damaged_keras_models_are_converted_or_refused(
    keras_models: Path, tensorflow_options: GetOptions, tmp_path: Path, name: str
) -> None:
    format_ = {".keras": SourceFormat.KERAS, ".h5": SourceFormat.KERAS_H5}.get(
        Path(name).suffix, SourceFormat.SAVED_MODEL
    )
    outcomes = try_mutants(keras_models / name, format_, tensorflow_options, tmp_path)
    assert outcomes.get("refused", 0) > 0
    # Keras writes other bytes each time, and TensorFlow may raise anything on them.
    assert set(outcomes) <= _FORESEEN | {"raised"}


def test_damaged_onnx_models_are_converted_or_refused(
    several_onnx: Path, onnx_options: GetOptions, tmp_path: Path
) -> None:
    outcomes = try_mutants(several_onnx, SourceFormat.ONNX, onnx_options, tmp_path)
    assert outcomes.get("refused", 0) > 0
    assert set(outcomes) <= _FORESEEN


def import_damaged(mutant: Path, options: ImportOptions, tmp_path: Path) -> None:
    """Import a mutant in a fork; one error at most comes of it, and nothing is left."""

    def import_it() -> None:
        import_verified(
            mutant,
            options=options,
            read_samples=lambda _specs: None,
            minimum_db=60.0,
            cache=Cache(root=tmp_path / "cache"),
            on_progress=lambda _line: None,
        )

    came = attempt(import_it, seconds=200)
    assert not came.is_fault, came
    assert [path.name for path in mutant.parent.iterdir()] == [mutant.name]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_whole_import_of_a_damaged_onnx_model_leaves_nothing(
    several_onnx: Path,
    onnx_options: GetOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    # Logs of failed workers are kept there, and nothing else anywhere.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = replace(onnx_options(), converter=Converter.ONNX2TF)
    folder = tmp_path / "mutant"
    folder.mkdir()
    import_damaged(make_mutant(several_onnx, folder, seed), options, tmp_path)


def test_a_whole_import_of_a_damaged_hdf5_model_leaves_nothing(
    keras_models: Path,
    tensorflow_options: GetOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # In its middle, which no reader of ours looks at: TensorFlow's worker meets it.
    content = bytearray((keras_models / "legacy.h5").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 512] = bytes([255]) * 512
    mutant = tmp_path / "mutant" / "legacy.h5"
    mutant.parent.mkdir()
    mutant.write_bytes(content)
    import_damaged(mutant, tensorflow_options(), tmp_path)
