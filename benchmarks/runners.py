"""Time the same models by Python's runner and by the native one, launches interleaved.

    python benchmarks/runners.py [MODEL.tflite...] [--rounds N]

Without models: EfficientNet-Lite0, float32, which scripts/fetch-models brings, and the digits
model of the tests. Three sides take turns, each round in the opposite order of the last:

- `python, C library`: Python's runner as it is sent to devices, with TensorFlow Lite's C library
  under it, through a binding that is written for this comparison;
- `native, C library`: the native runner with the same file;
- `python, LiteRT`: Python's runner with the runtime that a device with Python gets.

The first two differ in the runner alone, the last in the engine too. Bar: on models of at least
100 µs, the native runner's median is within 3% of Python's on the same engine, by the median of
the rounds' ratios. A call from Python costs about a microsecond, which a smaller model shows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from edgepack.cache import Cache, cache_directory
from edgepack.crossbuild import build_runner
from edgepack.device.runtime.native import VERSION, choose_native
from edgepack.device.runtime.wheel_files import fetch_wheel, unpack_wheel
from edgepack.device.survey.facts import read_facts
from edgepack.device.wire.local import LocalDevice
from edgepack.importers import ImportOptions, import_model
from edgepack.measure.bench import RUNNER_PATH
from edgepack.measure.stats import order_interval

REPOSITORY = Path(__file__).resolve().parent.parent
SMALLEST_NS = 100_000
BAR = 0.03
# Of a core: launches that had less were disturbed.
LEAST_SHARE = 0.98
MOST_TRIES = 10
PLAN = {
    "warmup_runs": 5,
    "warmup_seconds": 0.2,
    "min_runs": 20,
    "min_seconds": 0.5,
    "max_seconds": 20.0,
    "max_samples": 20_000,
}

BINDING = """
import ctypes, os
import numpy as np

lib = ctypes.CDLL(os.environ["TFLITE_C_LIBRARY"])
P = ctypes.c_void_p

class Options(ctypes.Structure):
    _fields_ = [("num_threads", ctypes.c_int32), ("others", ctypes.c_uint8 * 508)]

def function(name, result, *arguments):
    found = getattr(lib, "TfLite" + name)
    found.restype, found.argtypes = result, arguments
    return found

model_from_file = function("ModelCreateFromFile", P, ctypes.c_char_p)
make_options = function("InterpreterOptionsCreate", P)
set_threads = function("InterpreterOptionsSetNumThreads", None, P, ctypes.c_int32)
add_delegate = function("InterpreterOptionsAddDelegate", None, P, P)
default_delegate = function("XNNPackDelegateOptionsDefault", Options)
make_delegate = function("XNNPackDelegateCreate", P, ctypes.POINTER(Options))
make_interpreter = function("InterpreterCreate", P, P, P)
allocate = function("InterpreterAllocateTensors", ctypes.c_int, P)
invoke = function("InterpreterInvoke", ctypes.c_int, P)
num_inputs = function("InterpreterGetInputTensorCount", ctypes.c_int32, P)
get_input = function("InterpreterGetInputTensor", P, P, ctypes.c_int32)
dim_count = function("TensorNumDims", ctypes.c_int32, P)
dim = function("TensorDim", ctypes.c_int32, P, ctypes.c_int32)
type_of = function("TensorType", ctypes.c_int, P)
name_of = function("TensorName", ctypes.c_char_p, P)
copy_in = function("TensorCopyFromBuffer", ctypes.c_int, P, P, ctypes.c_size_t)
DTYPES = {1: np.float32, 2: np.int32, 3: np.uint8, 4: np.int64, 7: np.int16, 9: np.int8}

class Interpreter:
    def __init__(self, model_path, num_threads):
        delegate = default_delegate()
        delegate.num_threads = num_threads if num_threads > 1 else 0
        options = make_options()
        set_threads(options, num_threads)
        add_delegate(options, make_delegate(delegate))
        self._made = make_interpreter(model_from_file(model_path.encode()), options)
        if not self._made:
            raise RuntimeError("no interpreter")

    def allocate_tensors(self):
        if allocate(self._made):
            raise RuntimeError("no tensors")

    def get_input_details(self):
        tensors = [get_input(self._made, index) for index in range(num_inputs(self._made))]
        return [
            {
                "index": tensor,
                "name": name_of(tensor).decode(),
                "shape": [dim(tensor, axis) for axis in range(dim_count(tensor))],
                "dtype": DTYPES[type_of(tensor)],
            }
            for tensor in tensors
        ]

    def set_tensor(self, index, value):
        data = np.ascontiguousarray(value)
        if copy_in(index, data.ctypes.data, data.nbytes):
            raise RuntimeError("the input was refused")

    def invoke(self):
        if invoke(self._made):
            raise RuntimeError("it did not run")
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """A runner with an engine.

    Attributes:
        title: for the table.
        command: that a request is appended to.
        module: that Python's runner shall import; None for the usual one.
        variables: added to the environment.
    """

    title: str
    command: tuple[str, ...]
    module: str | None = None
    variables: tuple[tuple[str, str], ...] = ()


def say(text: str) -> None:
    """Tell what is being done; standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


def make_sides(folder: Path) -> tuple[Side, Side, Side]:
    """Put both runners and the library in place: Python's, the native one, the usual one."""
    cache = Cache(root=cache_directory())
    wheel = choose_native(read_facts(LocalDevice(), str(folder))).wheel
    library = folder / "libtensorflowlite_c.so"
    for name, content in unpack_wheel(fetch_wheel(wheel, cache.root / "wheels")):
        if name.endswith(library.name):
            library.write_bytes(content)
    program = folder / "runner"
    program.write_bytes(build_runner(wheel.arch, cache=cache, on_progress=say))
    program.chmod(0o755)
    package = folder / "site" / "tensorflow_lite_c"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"__version__ = '{VERSION}'\n")
    (package / "interpreter.py").write_text(BINDING)
    found = find_spec("ai_edge_litert")
    if found is None or found.origin is None:
        sys.exit("ai-edge-litert is not installed")
    python = (sys.executable, "-I", str(RUNNER_PATH), "--site")
    return (
        Side(
            title="python, C library",
            command=(*python, str(folder / "site")),
            module="tensorflow_lite_c.interpreter",
            variables=(("TFLITE_C_LIBRARY", str(library)),),
        ),
        Side(
            title="native, C library",
            command=(str(program), "--library", str(library)),
        ),
        Side(
            title="python, LiteRT",
            command=(*python, str(Path(found.origin).parent.parent)),
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """One launch.

    Attributes:
        engine: name and version, as it said itself.
        median_ns: of its runs.
        init_ns: opening the model.
        peak_bytes: largest resident memory.
        core_share: processor time of its runs over their wall time.
    """

    engine: str
    median_ns: float
    init_ns: int
    peak_bytes: int
    core_share: float


def launch(side: Side, model: Path) -> Timed:
    """Time one launch."""
    request = {
        "mode": "latency",
        "model": str(model),
        "threads": 1,
        "inputs": [],
        "module": side.module,
        "plan": PLAN,
    }
    done = subprocess.run(
        [*side.command, json.dumps(request)],
        check=False,
        capture_output=True,
        env=os.environ | dict(side.variables),
    )
    events = {each["event"]: each for each in map(json.loads, done.stdout.splitlines())}
    if done.returncode or "launch" not in events:
        sys.exit(f"{side.title}: {events.get('error') or done.stderr.decode()}")
    line = events["launch"]
    return Timed(
        engine="{name} {version}".format(**events["engine"]),
        median_ns=median(line["samples_ns"]),
        init_ns=line["init_ns"],
        peak_bytes=line["peak_memory_bytes"],
        core_share=line["cpu_ns"] / line["wall_ns"],
    )


def take_rounds(
    sides: tuple[Side, ...], model: Path, *, num_rounds: int
) -> list[tuple[Timed, ...]]:
    """Time one launch of each side a round, until so many rounds were left in peace.

    A round counts when each of its launches had a core for itself.
    """
    rounds: list[tuple[Timed, ...]] = []
    taken = 0
    while len(rounds) < num_rounds:
        if taken == MOST_TRIES * num_rounds:
            sys.exit(f"{taken} rounds, {len(rounds)} of them undisturbed: the machine is too busy")
        order = range(len(sides)) if taken % 2 == 0 else reversed(range(len(sides)))
        timed = {place: launch(sides[place], model) for place in order}
        taken += 1
        if min(each.core_share for each in timed.values()) >= LEAST_SHARE:
            rounds.append(tuple(timed[place] for place in range(len(sides))))
        say(f"{model.name}: {taken} rounds, {len(rounds)} of {num_rounds} undisturbed")
    print(f"\n{model.name}: {num_rounds} rounds, {taken - num_rounds} disturbed ones left out\n")
    return rounds


def compare(sides: tuple[Side, ...], model: Path, *, num_rounds: int) -> bool:
    """Print one model's table; tell whether the bar is met."""
    rounds = take_rounds(sides, model, num_rounds=num_rounds)
    print("| runner, engine | median | against the first, by rounds | init | peak memory |")
    print("|---|---:|---:|---:|---:|")
    medians: list[float] = []
    share = 1.0
    for place, side in enumerate(sides):
        mine = [each[place] for each in rounds]
        ratios = [each[place].median_ns / each[0].median_ns for each in rounds]
        interval = order_interval([round(each * 1e6) for each in ratios])
        ends = f" ({interval[0] / 1e6:.3f} to {interval[1] / 1e6:.3f})" if interval else ""
        medians.append(median(each.median_ns for each in mine))
        if place == 1:
            share = median(ratios)
        cells = (
            f"{side.title} ({mine[0].engine})",
            f"{medians[-1] / 1e3:.1f} µs",
            f"{median(ratios):.3f}{ends}" if place else "",
            f"{median(each.init_ns for each in mine) / 1e6:.1f} ms",
            f"{median(each.peak_bytes for each in mine) / 2**20:.0f} MiB",
        )
        print("| " + " | ".join(cells) + " |")
    if medians[0] < SMALLEST_NS:
        print(f"\nToo small for the bar: {medians[0] - medians[1]:.0f} ns apart.")
        return True
    return abs(share - 1) <= BAR


def default_models(folder: Path) -> list[Path]:
    """Give EfficientNet-Lite0 in float32 and the digits model."""
    command = [sys.executable, REPOSITORY / "scripts" / "fetch-models", "efficientnet-lite0"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    imported = import_model(
        Path(done.stdout.splitlines()[0]),
        options=ImportOptions(),
        cache=Cache(root=cache_directory()),
        on_progress=say,
    )
    path = folder / "efficientnet-lite0.tflite"
    path.write_bytes(imported.model.data)
    return [path, REPOSITORY / "tests" / "data" / "digits.tflite"]


def main() -> int:
    """Print a table for each model; 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=25)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = make_sides(folder)
        models = given.models or default_models(folder)
        met = [compare(sides, model, num_rounds=given.rounds) for model in models]
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
