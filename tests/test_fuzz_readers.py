"""EdgePack's own readers of foreign files: damaged ones are read, or refused in words."""

from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgepack.data import load_samples
from edgepack.errors import EdgePackError
from edgepack.evaluate import run_model
from edgepack.importers import detect_format, digest_source
from edgepack.model import TensorSpec, load_model
from tests.fixtures.commands import run_command
from tests.fixtures.fuzzing import attempt, scratch
from tests.fixtures.models import FOLDER, make_feeds
from tests.fixtures.mutants import make_mutant

_DATA = FOLDER.parent
_DIGITS = Path(__file__).parents[1] / "examples" / "digits"
_FLATBUFFERS = (*sorted(_DATA.glob("*.tflite")), *sorted(FOLDER.glob("*.tflite")))
_PIXELS = TensorSpec(name="pixels", shape=(1, 8, 8, 1), dtype="float32")
_SEEDS = st.integers(0, 2**32 - 1)
# About one mutant in three is read.
_NUM_RUN, _MOST_SEEDS = 8, 60


def explains_itself(error: EdgePackError) -> bool:
    return bool(error.message and error.remedy) and "Traceback" not in error.message


@settings(max_examples=120, deadline=None)
@given(source=st.sampled_from(_FLATBUFFERS), seed=_SEEDS)
def test_a_damaged_flatbuffer_is_read_or_refused(source: Path, seed: int) -> None:
    with scratch("mutant-") as folder:
        path = make_mutant(source, folder, seed)
        try:
            detect_format(path)
            load_model(path)
        except EdgePackError as error:
            explained = explains_itself(error)
        else:
            explained = True
        assert explained


@settings(max_examples=25, deadline=None)
@given(source=st.sampled_from(_FLATBUFFERS), seed=_SEEDS)
def test_inspecting_a_damaged_flatbuffer_is_no_bug(source: Path, seed: int) -> None:
    with scratch("mutant-") as folder:
        ran = run_command("inspect", make_mutant(source, folder, seed), "--json")
        assert ran.code in {0, 1}, ran.err
        assert ("error" in ran.json()) is (ran.code == 1)


def is_read(path: Path) -> bool:
    try:
        load_model(path)
    except EdgePackError:
        return False
    return True


def test_running_a_damaged_flatbuffer_gives_arrays_or_an_error() -> None:
    def run() -> None:
        model = load_model(path)
        run_model(model, make_feeds(model, num_samples=1), timeout_seconds=30)

    num_run = 0
    for seed in range(_MOST_SEEDS):
        with scratch("mutant-") as folder:
            path = make_mutant(FOLDER / "cnn.tflite", folder, seed)
            # What the readers refuse never reaches the runtime.
            if not is_read(path):
                continue
            num_run += 1
            assert not (came := attempt(run, seconds=60)).is_fault, (seed, came)
        if num_run == _NUM_RUN:
            break
    assert num_run == _NUM_RUN


@settings(max_examples=40, deadline=None)
@given(seed=_SEEDS)
@example(seed=176)  # zlib.error out of a damaged deflate stream
def test_damaged_arrays_are_loaded_or_refused(seed: int) -> None:
    with scratch("mutant-") as folder:
        path = make_mutant(_DIGITS / "digits.npz", folder, seed)
        try:
            load_samples(str(path), inputs=(_PIXELS,))
        except EdgePackError as error:
            explained = explains_itself(error)
        else:
            explained = True
        assert explained


@settings(max_examples=40, deadline=None)
@given(seed=_SEEDS)
def test_a_damaged_archive_is_recognized_or_refused(seed: int) -> None:
    with scratch("mutant-") as folder:
        path = make_mutant(_DIGITS / "digits.keras", folder, seed)
        try:
            detect_format(path)
            digest_source(path)
        except EdgePackError as error:
            explained = explains_itself(error)
        else:
            explained = True
        assert explained
