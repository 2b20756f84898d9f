"""Peak memory of a whole search beside the float model's own inference.

    python benchmarks/search_memory.py [--model NAME]

The float model (a .tflite already, so that no import is counted) is packed by the command line with
`--recipe auto`, nothing taken from an earlier run. Every 20 ms the memory of all its processes is
added up, each page shared by several counted once (Linux PSS). The float model's own inference is
a Python process that loads the runtime and the model and answers 50 times; the calibration set are
the bytes of all samples as the model takes them. Bar: at most three times the inference, and the
set. The models come by scripts/fetch-models, the data by the modules of examples/. The table is
Markdown.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.cache import Cache, cache_directory
from edgepack.data import load_samples
from edgepack.importers import ImportOptions, import_model, model_feeds

REPOSITORY = Path(__file__).resolve().parent.parent
MIB = 2**20
BAR = 3.0
INTERVAL_SECONDS = 0.02

# The runtime and the model alone: what an inference takes says nothing of samples.
INFERENCE = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
for detail in interpreter.get_input_details():
    interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
for _ in range(50):
    interpreter.invoke()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A model of the benchmark: its samples, and the shape that its source leaves open."""

    folder: str
    data: str
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()


CASES = {
    "efficientnet-lite0": Case(folder="efficientnet", data="photos:crops"),
    "ppocr-detector": Case(
        folder="ppocr", data="pages:pages", input_shapes=(("x", (1, 3, 320, 320)),)
    ),
}


def children_of(pid: int) -> list[int]:
    """Give a process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                found += children_of(int(child))
    return found


def memory_bytes(pid: int) -> int:
    """Add up the memory of a process and all below it, shared pages once."""
    total = 0
    for each in children_of(pid):
        # A process may end between the two looks.
        with suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
    return total


def run_peak(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
) -> int:
    """Run a command; give the most bytes that it and all below it took."""
    ended = threading.Event()
    peaks = [0]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL
    ) as process:

        def watch() -> None:
            while not ended.wait(INTERVAL_SECONDS):
                peaks[0] = max(peaks[0], memory_bytes(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        ended.set()
        watcher.join()
    if status:
        message = f"{command[0]} ended with {status}"
        raise RuntimeError(message)
    return peaks[0]


def measure(name: str, folder: Path) -> str:
    """Give the row of a model."""
    case = CASES[name]
    fetched = subprocess.run(
        (sys.executable, str(REPOSITORY / "scripts" / "fetch-models"), name),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    options = ImportOptions(input_shapes=case.input_shapes)
    imported = import_model(
        Path(fetched.stdout.strip()),
        options=options,
        cache=Cache(root=cache_directory()),
        on_progress=lambda text: print(text, file=sys.stderr, flush=True),
    )
    data_folder = REPOSITORY / "examples" / case.folder
    os.chdir(data_folder)
    specs = tuple(binding.source for binding in imported.inputs)
    feeds = model_feeds(imported, load_samples(case.data, inputs=specs))
    model, data = folder / f"{name}.tflite", folder / f"{name}.npz"
    model.write_bytes(imported.model.data)
    (spec,) = imported.model.signature.inputs
    samples = np.concatenate([feed for (feed,) in feeds])
    arrays: dict[str, Any] = {spec.name: samples}
    np.savez(data, **arrays)
    inference = run_peak((sys.executable, "-c", INFERENCE, str(model)), folder=folder)
    pack = (
        *(sys.executable, "-m", "edgepack", "pack", str(model), "--target", "laptop-x86-64"),
        *("--data", str(data), "-o", str(folder / f"{name}.edgepack")),
    )
    fresh = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    search = run_peak(pack, folder=folder, environment=fresh)
    bound = BAR * inference + samples.nbytes
    return (
        f"| {name} | {inference / MIB:.0f} | {samples.nbytes / MIB:.0f} | {search / MIB:.0f} "
        f"| {(search - samples.nbytes) / inference:.2f}x | {'yes' if search <= bound else 'no'} |"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", choices=list(CASES), help="default: all")
    given = parser.parse_args()
    packages = ("ai-edge-litert", "ai-edge-quantizer", "numpy")
    print("- " + ", ".join(f"{name} {version(name)}" for name in packages))
    print("\n| model | inference MiB | samples MiB | search MiB ", end="")
    print(f"| search without samples, of inference | at most {BAR:g}x |")
    print("|---|---:|---:|---:|---:|---|")
    for name in given.model or CASES:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(name, Path(folder)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
