"""Run a TFLite model on the device it is sent to, and say in JSON lines how that went.

Usage: `python3 -I tflite.py [--site FOLDER] REQUEST`, where REQUEST is a JSON object, or `-`
to read it from standard input. Needs Python 3.8, numpy, and ai_edge_litert or
tflite_runtime, which FOLDER may hold. One process is one launch.

A request has `mode`, `model` (a path), `threads`, optionally `module` (the runtime's), and
`inputs`: for each input in the runtime's order a file of raw little-endian samples, one after
another; an empty list asks for made-up inputs. Mode `outputs` has `samples` (how many) and
`emit` (false: run the first one so often, and send no outputs), and optionally `stream` (true:
the samples are one stream, so that variables are not reset); mode `latency` has `plan`, and
optionally `cold` (true: the model's file is dropped from memory before it is opened). Mode
`idle` needs `seconds` alone, and tells the energy that is taken while nothing is run.
Every line on standard output is an object with `event`: `engine`, then `sample` and `output`,
or `init`, `first` and `launch`, or `idle`; at last `done`, or `error` with `kind` and `message`
and exit code 1. Times are whole nanoseconds of `time.perf_counter_ns`.
"""

import sys

# A Python older than 3.8 must get as far as the check below: Python 3.6 and 3.7 can parse all of
# this file, and run the lines before the check. So no `from __future__ import annotations`.
# ruff: noqa: E402, FA100, ANN401 - imports follow the check; see above; the runtimes are untyped


def check_python(version: tuple) -> str:  # type: ignore[type-arg]
    """Say what is wrong with a Python version, as (major, minor); empty when it will do."""
    if tuple(version) >= (3, 8):
        return ""
    return f"expected Python 3.8 or newer, but the device's is {version[0]}.{version[1]}"


if __name__ == "__main__" and check_python(sys.version_info[:2]):
    fault = check_python(sys.version_info[:2])
    sys.stdout.write(f'{{"event": "error", "kind": "python_too_old", "message": "{fault}"}}\n')
    sys.stdout.flush()
    sys.exit(1)

import array
import base64
import gc
import json
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

Request = Dict[str, Any]
Emit = Callable[[Dict[str, Any]], None]

_CHUNK_BYTES = 3 * 2**20  # of one output line; divisible by 3, so that base64 has no padding inside
_MAXIMUM_REQUEST_BYTES = 2**20
_MAXIMUM_WARMUP_SAMPLES = 1000  # as many are kept; more may be run
_STRETCH_RUNS = 3  # the median of fewer is moved by one run that was disturbed
_STEADY_SHARE = 50  # medians that differ by no more than a 50th are alike
_COLD_SHARE = 20  # no more than a 20th of a file that was dropped may be left in memory
_MAXIMUM_TICKS = 1000
_TICK_NS = 500_000_000  # between looks at the conditions
_PROC, _SYS = "/proc", "/sys"
_SETTLE_SECONDS, _IDLE_STEP_SECONDS = 0.3, 0.1
_STEAL_FIELD = 7  # of the line cpu of /proc/stat (proc_stat(5))
_BUSY_FIELDS = (0, 1, 2, 5, 6)  # of the same: user, nice, system, irq, softirq
_FIRMWARE_FLAGS = "devices/platform/soc/soc:firmware/get_throttled"
_FLAG_DIGITS = 8
_MOST_GOVERNORS, _LONGEST_NAME = 4, 32
_QUOTA_WAITS = {"throttled_usec": 1000, "throttled_time": 1}  # in ns; of versions 2 and 1
_CPU_ZONES = ("cpu", "soc", "pkg", "package", "cluster")
_COLDEST_MILLIS, _HOTTEST_MILLIS = -50_000, 150_000  # what a sensor that works can tell
_QUICK_NS = 50_000_000  # a longer run brings the model back into the caches by itself

# What the runtimes say of ops they have no kernel for (tflite_runtime 2.14, LiteRT 2.3). Flex
# and custom ops may be found missing only at the first invoke, when shapes are dynamic.
_UNSUPPORTED = (
    "unresolved custom op",
    "Didn't find op for builtin opcode",
    "Op builtin_code out of range",
    "Select TensorFlow op(s)",
)


class RunnerError(Exception):
    """A failure with a kind for programs and a message for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def main(arguments: List[str], emit: Emit) -> int:
    """Carry out the request of a command line and give the exit code."""
    try:
        site, text = _read_arguments(arguments)
        request = _read_request(text)
        if request["mode"] == "idle":
            emit(_watch_idle(float(request["seconds"])))
            emit({"event": "done"})
            return 0
        if site is not None:
            sys.path.insert(0, site)
        engine, make = _load_runtime(site, request.get("module"))
        _run(request, engine, make, emit)
    except RunnerError as error:
        emit({"event": "error", "kind": error.kind, "message": str(error)})
        return 1
    except MemoryError:
        emit({"event": "error", "kind": "memory", "message": "the device ran out of memory"})
        return 1
    emit({"event": "done"})
    return 0


def _read_arguments(arguments: List[str]) -> Tuple[Optional[str], str]:
    site = None
    if len(arguments) >= 2 and arguments[0] == "--site":  # noqa: PLR2004 - the option and its value
        site, arguments = arguments[1], arguments[2:]
    if len(arguments) != 1:
        raise RunnerError("request", "expected [--site FOLDER] REQUEST on the command line")
    if arguments[0] == "-":
        return site, sys.stdin.read(_MAXIMUM_REQUEST_BYTES)
    return site, arguments[0]


def _read_request(text: str) -> Request:
    try:
        request = json.loads(text)
    except ValueError as error:
        raise RunnerError("request", f"the request is not JSON: {error}") from error
    if not isinstance(request, dict) or request.get("mode") not in ("outputs", "latency", "idle"):
        raise RunnerError("request", "expected a request with the mode outputs or latency")
    return request


def _load_runtime(
    site: Optional[str], module: Optional[str]
) -> Tuple[Dict[str, Any], Callable[..., Any]]:
    """Import the runtime asked for, or the first there is; give its name and Interpreter class."""
    reasons = []
    for package in [module.split(".")[0]] if module else ["ai_edge_litert", "tflite_runtime"]:
        name = package.replace("_", "-")
        try:
            interpreter = __import__(package + ".interpreter", fromlist=["Interpreter"])
        # A runtime for another libc or numpy fails while it is imported, in many ways.
        except (ImportError, OSError, AttributeError, RuntimeError, SystemError) as error:
            reasons.append(f"{name}: {error}")
            continue
        version = getattr(__import__(package), "__version__", None)
        engine = {"name": name, "version": version or _installed_version(name, site)}
        return engine, interpreter.Interpreter
    raise RunnerError("import", "no TFLite runtime can be imported: " + "; ".join(reasons))


def _installed_version(name: str, site: Optional[str]) -> Optional[str]:
    from importlib import metadata  # noqa: PLC0415 - new in Python 3.8

    try:
        found = list(metadata.distributions(name=name, path=[site])) if site else []
        return str(found[0].version if found else metadata.version(name))
    except metadata.PackageNotFoundError:
        return None


def _run(request: Request, engine: Dict[str, Any], make: Callable[..., Any], emit: Emit) -> None:
    model, threads = str(request["model"]), int(request["threads"])
    if not Path(model).is_file():
        raise RunnerError("missing_file", f"the model {model} is not there")
    is_cold, cold_reason = None, None  # type: Tuple[Optional[bool], Optional[str]]
    if request["mode"] == "latency" and request.get("cold"):
        is_cold, cold_reason = _drop_from_memory(model)
    memory_before, _ = _peak_memory()
    start = time.perf_counter_ns()
    try:
        interpreter = make(model_path=model, num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        # Memory that cannot be had is an error without a word (LiteRT 2.3).
        if not str(error):
            raise MemoryError from error
        raise _runtime_error("model", error) from error
    init_ns = time.perf_counter_ns() - start
    engine.update(event="engine", threads=threads, xnnpack=_is_delegated(interpreter))
    engine.update(runner="python", python=".".join(map(str, sys.version_info[:3])))
    emit(engine)
    if request["mode"] == "outputs":
        _emit_outputs(interpreter, request, emit)
    else:
        emit({"event": "init", "init_ns": init_ns})
        opened: Dict[str, Any] = {"init_ns": init_ns, "start_memory_bytes": memory_before}
        opened.update(is_cold=is_cold, cold_reason=cold_reason)
        _emit_launch(interpreter, request, emit, opened)


def _drop_from_memory(path: str) -> Tuple[bool, Optional[str]]:
    """Drop a file from memory, so that the next one to open it reads it from the disk.

    Only what is written to the disk can be dropped, and that is a wish: so it is looked at. Give
    whether no more than a 20th is left, and otherwise why.
    """
    if not hasattr(os, "posix_fadvise"):  # macOS
        return False, "this system has no call that drops a file from memory"
    try:
        with Path(path).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            resident, num_pages = _count_resident(file.fileno())
    except (ImportError, OSError, ValueError, AttributeError):
        return False, "it cannot be seen whether the model left the memory"
    if resident * _COLD_SHARE <= num_pages:
        return True, None
    return False, f"{resident} of {num_pages} pages of the model stayed in memory"


def _count_resident(file: int) -> Tuple[int, int]:
    """Give how many pages of a file are in memory, of how many."""
    import ctypes  # noqa: PLC0415 - some builds of Python are without it
    import mmap  # noqa: PLC0415 - likewise

    library = ctypes.CDLL(None, use_errno=True)
    library.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    # A private copy, as ctypes takes none that cannot be written; nothing in it is touched.
    with mmap.mmap(file, 0, access=mmap.ACCESS_COPY) as mapped:
        num_pages = -(-len(mapped) // mmap.PAGESIZE)
        pages = (ctypes.c_ubyte * num_pages)()
        start = ctypes.c_char.from_buffer(mapped)
        status = library.mincore(ctypes.addressof(start), len(mapped), pages)
        del start  # or it could not be closed
    if status != 0:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in pages), num_pages


def _runtime_error(kind: str, error: Exception) -> RunnerError:
    message = " ".join(str(error).split())
    if any(phrase in message for phrase in _UNSUPPORTED):
        kind = "unsupported_op"
    return RunnerError(kind, message)


def _is_delegated(interpreter: Any) -> Optional[bool]:
    """Tell whether XNNPACK, the only delegate applied by default, took any part of the graph.

    A part it took stands as an op named DELEGATE (seen with tflite_runtime 2.14 and LiteRT
    2.3). The call is not public, so its absence reads as unknown.
    """
    try:
        return any("DELEGATE" in op["op_name"].upper() for op in interpreter._get_ops_details())  # noqa: SLF001 - see above
    except (AttributeError, KeyError, RuntimeError, ValueError, TypeError):
        return None


def _feed(interpreter: Any, request: Request, sample: int) -> None:
    """Set all inputs to one sample of the request's files, or to made-up values."""
    import numpy as np  # noqa: PLC0415 - comes from the site folder

    details, paths = interpreter.get_input_details(), request["inputs"]
    if paths and len(paths) != len(details):
        text = f"expected a file for each of {len(details)} inputs, but got {len(paths)}"
        raise RunnerError("inputs", text)
    random = np.random.RandomState(0)
    for index, detail in enumerate(details):
        shape, dtype = tuple(int(size) for size in detail["shape"]), np.dtype(detail["dtype"])
        num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if paths:
            data = _read_sample(paths[index], sample, num_bytes, detail["name"])
            value = np.frombuffer(data, dtype=dtype).reshape(shape)
        elif dtype.kind == "f":
            value = random.uniform(-1, 1, shape).astype(dtype)
        elif dtype.itemsize <= 2 and dtype.kind in "iu":  # noqa: PLR2004 - quantized reals
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            value = random.randint(low, high + 1, shape).astype(dtype)
        else:  # an index or a switch, for which only zero is surely in range
            value = np.zeros(shape, dtype)
        try:
            interpreter.set_tensor(detail["index"], value)
        except (RuntimeError, ValueError) as error:
            raise _runtime_error("inputs", error) from error


def _read_sample(path: str, sample: int, num_bytes: int, name: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            file.seek(sample * num_bytes)
            data = file.read(num_bytes)
    except OSError as error:
        text = f"the input file {path} cannot be read: {error.strerror}"
        raise RunnerError("missing_file", text) from error
    if len(data) != num_bytes:
        text = f"input {name} needs {num_bytes} bytes a sample, but sample {sample} of {path} "
        text += f"has {len(data)}"
        raise RunnerError("inputs", text)
    return data


def _invoke(interpreter: Any) -> int:
    start = time.perf_counter_ns()
    try:
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise _runtime_error("invoke", error) from error
    return time.perf_counter_ns() - start


def _emit_outputs(interpreter: Any, request: Request, emit: Emit) -> None:
    for sample in range(int(request["samples"])):
        _feed(interpreter, request, sample if request["emit"] else 0)
        # Variable tensors start afresh with each sample unless the samples are a stream.
        # Resource variables are never reset by this call (LiteRT 2.3).
        if not request.get("stream"):
            interpreter.reset_all_variables()
        run_ns = _invoke(interpreter)
        emit({"event": "sample", "sample": sample, "run_ns": run_ns})
        if not request["emit"]:
            continue
        for index, detail in enumerate(interpreter.get_output_details()):
            value = interpreter.get_tensor(detail["index"])
            _emit_output(emit, sample, index, value)


def _emit_output(emit: Emit, sample: int, index: int, value: Any) -> None:
    data = value.tobytes()
    line = {"event": "output", "sample": sample, "index": index}
    line.update(dtype=value.dtype.name, shape=list(value.shape), num_bytes=len(data))
    for offset in range(0, max(1, len(data)), _CHUNK_BYTES):
        chunk = base64.b64encode(data[offset : offset + _CHUNK_BYTES]).decode("ascii")
        emit(dict(line, offset=offset, data=chunk))


def _emit_launch(interpreter: Any, request: Request, emit: Emit, opened: Dict[str, Any]) -> None:
    plan = request["plan"]
    _feed(interpreter, request, 0)
    begin = time.perf_counter_ns()
    first_ns = _invoke(interpreter)
    emit({"event": "first", "first_ns": first_ns})
    deadline = begin + int(plan["max_seconds"] * 1e9)
    capacity = int(plan["max_samples"])
    gc.collect()
    gc.disable()
    warmup_deadline = begin + (deadline - begin) // 3
    warmup = array.array("q", bytes(8 * min(capacity, _MAXIMUM_WARMUP_SAMPLES)))
    minimum = (int(plan["warmup_runs"]), int(plan["warmup_seconds"] * 1e9))
    settling = Settling(*minimum) if plan.get("until_steady") else None
    kept, num_warmup = _warm_up(interpreter.invoke, warmup, minimum, warmup_deadline, settling)
    typical_ns = sorted(warmup[:kept])[kept // 2] if kept else first_ns
    min_ns = int(plan["min_seconds"] * 1e9)
    # So that a quick model's samples span the whole time in bounded storage, only every
    # stride-th run is timed; a tenth is left for runs that get quicker.
    stride = 1 + int(min_ns / (max(1, typical_ns) * capacity * 0.9))
    storage = array.array("q", bytes(8 * capacity))
    meter = Meter()
    before = _conditions(meter)
    limits = (int(plan["min_runs"]), min_ns, deadline)
    ticks = []  # type: List[Dict[str, Any]]
    start, cpu_start = time.perf_counter_ns(), time.process_time_ns()
    try:
        count = _time_runs(
            interpreter.invoke, storage, limits, stride, lambda at: ticks.append(_tick(meter, at))
        )
    except (RuntimeError, ValueError) as error:
        raise _runtime_error("invoke", error) from error
    cpu_ns, wall_ns = time.process_time_ns() - cpu_start, time.perf_counter_ns() - start
    after = _conditions(meter)
    peak, reason = _peak_memory()
    launch = dict(opened, event="launch", first_ns=first_ns)
    launch.update(warmup_ns=warmup[:kept].tolist(), num_warmup_runs=num_warmup)
    launch.update(is_steady=settling.is_steady if settling is not None else None)
    launch.update(samples_ns=storage[:count].tolist(), stride=stride)
    launch.update(wall_ns=wall_ns, cpu_ns=cpu_ns, before=before, after=after, ticks=ticks)
    launch.update(peak_memory_bytes=peak, peak_memory_reason=reason)
    launch.update(num_cores=len(_held_cores()) or None)
    launch.update(energy_source=meter.source, energy_reason=meter.reason)
    emit(launch)


def _warm_up(
    invoke: Callable[[], None],
    storage: Any,
    minimum: Tuple[int, int],
    deadline: int,
    settling: "Optional[Settling]",
) -> Tuple[int, int]:
    """Run until both minimums (runs, nanoseconds) are met, and run times have settled if wanted.

    Give kept samples and runs.
    """
    clock, capacity = time.perf_counter_ns, len(storage)
    count, begin = 0, clock()
    end = begin
    while (
        count < minimum[0]
        or end - begin < minimum[1]
        or (settling is not None and not settling.is_steady)
    ) and end < deadline:
        start = clock()
        invoke()
        end = clock()
        if count < capacity:
            storage[count] = end - start
        if settling is not None:
            settling.add(start, end)
        count += 1
    return min(count, capacity), count


class Settling:
    """Whether run times have settled: two stretches, one after the other, have medians alike.

    A stretch is half of the least warm-up (runs, nanoseconds): a model that is steady at once needs
    no longer one. Of runs that vary by 5% among themselves, medians of 100 are alike in 98 of 100
    pairs and medians of 3 in 30 (simulated), so that noise alone does not keep it going.
    `is_steady` is None before there are two.
    """

    def __init__(self, runs: int, min_ns: int) -> None:
        self.is_steady = None  # type: Optional[bool]
        self._runs, self._min_ns = max(_STRETCH_RUNS, (runs + 1) // 2), min_ns // 2
        self._times = array.array("q", bytes(8 * _MAXIMUM_WARMUP_SAMPLES))
        self._count = self._kept = self._begin = self._due = self._last = 0

    def add(self, start: int, end: int) -> None:
        """Take a run; its time counts among those spread evenly over the stretch."""
        if self._count == 0:
            self._begin = self._due = start
        # By when a run began: of those that end after a moment the longer ones are more.
        if start >= self._due and self._kept < _MAXIMUM_WARMUP_SAMPLES:
            self._times[self._kept] = end - start
            self._kept += 1
            self._due += self._min_ns // _MAXIMUM_WARMUP_SAMPLES
        self._count += 1
        if self._count < self._runs or end - self._begin < self._min_ns:
            return
        median = sorted(self._times[: self._kept])[self._kept // 2]
        if self._last:
            self.is_steady = abs(median - self._last) * _STEADY_SHARE <= self._last
        self._last = max(1, median)
        self._count = self._kept = 0


def _time_runs(
    invoke: Callable[[], None],
    storage: Any,
    limits: Tuple[int, int, int],
    stride: int,
    look: Callable[[int], None],
) -> int:
    """Time every stride-th run until both minimums are met; give the number of samples.

    Now and then, between runs, it looks at the conditions, `look` being given how many samples
    there are; a quick model's run after that is not timed, as looking has taken it out of the
    caches.
    """
    clock, capacity, between = time.perf_counter_ns, len(storage), range(stride - 1)
    count, begin = 0, clock()
    runs, min_ns, deadline = limits
    interval = max(_TICK_NS, min_ns // _MAXIMUM_TICKS)
    due, num_looks = begin + interval, 0
    while True:
        start = clock()
        invoke()
        end = clock()
        storage[count] = end - start
        count += 1
        if count == capacity or (count >= runs and end - begin >= min_ns):
            return count
        if end + (end - start) * stride > deadline:  # the next would end too late
            return count
        if end >= due and num_looks < _MAXIMUM_TICKS:
            look(count)
            due, num_looks = clock() + interval, num_looks + 1
            if end - start < _QUICK_NS:
                invoke()
        for _ in between:
            invoke()


def _tick(meter: "Meter", sample: int) -> Dict[str, Any]:
    return dict(_conditions(meter), sample=sample)


def _conditions(meter: "Meter") -> Dict[str, Any]:
    """Read what may move the latency, where Linux tells it: clock, temperature, other work.

    Stolen and busy time, stalls and swapping count since the system was started, waits for a quota
    since its group was made, energy since the meter was.
    """
    frequencies = _read_integers(_core_files("scaling_cur_freq"))
    runnable = None
    try:
        text = Path(_PROC, "loadavg").read_text(encoding="ascii")
        # Android hides it, and proot-distro puts a file of always this line there.
        if text.strip() != "0.12 0.07 0.02 2/165 765":
            runnable = int(text.split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):
        pass  # not Linux, or hidden from this user: unknown
    return {
        "frequency_khz": max(frequencies) if frequencies else None,
        "temperature_c": _temperature_c(),
        "num_runnable": runnable,
        # Who hides that file, or puts another in its place, does so with these.
        "stolen_ns": None if runnable is None else _stolen_ns(),
        "busy_ns": None if runnable is None else _busy_ns(),
        "quota_wait_ns": _quota_wait_ns(),
        "memory_stall_ns": _memory_stall_ns(),
        "swapped_bytes": None if runnable is None else _swapped_bytes(),
        "throttled": _throttled_flags(),
        "governor": _governor(),
        "energy_uj": meter.read(),
    }


def _held_cores() -> List[int]:
    """Give the cores that this process may run on; none where nothing tells them."""
    try:
        return sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return []  # not Linux


def _core_files(name: str) -> List[Path]:
    """Give the paths of a file about the clock, of each core that this process may run on."""
    folder = Path(_SYS, "devices/system/cpu")
    return [folder / f"cpu{core}" / "cpufreq" / name for core in _held_cores()]


def _temperature_c() -> Optional[float]:
    """Give the hottest zone that is named after a CPU or SoC, else the hottest of all."""
    zones = []
    for folder in Path(_SYS).glob("class/thermal/thermal_zone*"):
        name = (_read_text(folder / "type") or "").lower()
        is_cpu = any(word in name for word in _CPU_ZONES)
        zones += [
            (is_cpu, degrees / 1000)
            for degrees in _read_integers([folder / "temp"])
            if _COLDEST_MILLIS <= degrees <= _HOTTEST_MILLIS
        ]
    return max(zones)[1] if zones else None


def _throttled_flags() -> Optional[int]:
    """Give the flags of a Raspberry Pi's firmware, as far as its kernel has them."""
    text = _read_text(Path(_SYS, _FIRMWARE_FLAGS)) or ""
    is_hex = text != "" and not text.strip("0123456789abcdefABCDEF")
    return int(text, 16) if is_hex and len(text) <= _FLAG_DIGITS else None


def _governor() -> Optional[str]:
    """Give what sets the clocks of the cores that this process may run on; several, joined by +."""
    names = {_read_text(path) or "" for path in _core_files("scaling_governor")}
    told = sorted(name for name in names if name.isidentifier() and len(name) <= _LONGEST_NAME)
    return "+".join(told[:_MOST_GOVERNORS]) or None


def _busy_ns() -> Optional[int]:
    """Give the time that the cores this process may run on worked, for any program."""
    held = {f"cpu{core}" for core in _held_cores()}
    ticks, num_told = 0, 0
    try:
        with Path(_PROC, "stat").open(encoding="ascii", errors="replace") as file:
            for line in file:
                words = line.split()
                if words and words[0] in held:
                    ticks += sum(int(words[1 + field]) for field in _BUSY_FIELDS)
                    num_told += 1
    except (OSError, ValueError, IndexError):
        return None
    is_told = num_told > 0 and num_told == len(held)
    return ticks * 10**9 // os.sysconf("SC_CLK_TCK") if is_told else None


def _quota_wait_ns() -> Optional[int]:
    """Give the time, summed over cores, that quotas of control groups have kept threads waiting.

    A group's counter tells of its own quota only, so those of the groups around it are added.
    """
    total = None
    for folder in _cpu_groups():
        for line in (_read_text(folder / "cpu.stat") or "").splitlines():
            key, _, number = line.partition(" ")
            if key in _QUOTA_WAITS and number.isdecimal():
                total = (total or 0) + int(number) * _QUOTA_WAITS[key]
    return total


def _cpu_groups() -> List[Path]:
    """Give the folders of this process's control groups and those around them, if they show."""
    folders = []
    for line in (_read_text(Path(_PROC, "self/cgroup")) or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = Path(_SYS, "fs/cgroup/cpu" if controllers else "fs/cgroup")
        names = [] if "/.." in path else [name for name in path.split("/") if name]
        folders += [root.joinpath(*names[:depth]) for depth in range(len(names) + 1)]
    return folders


def _stolen_ns() -> Optional[int]:
    """Give the time of all cores that a hypervisor gave to others."""
    words = _find_line("stat", "cpu") or []
    if len(words) <= _STEAL_FIELD or not words[_STEAL_FIELD].isdecimal():
        return None
    return int(words[_STEAL_FIELD]) * 10**9 // os.sysconf("SC_CLK_TCK")


def _memory_stall_ns() -> Optional[int]:
    """Give the time in which some program waited for memory; kernels may be without it."""
    words = _find_line("pressure/memory", "some") or [""]
    total = words[-1][len("total=") :]
    return int(total) * 1000 if words[-1].startswith("total=") and total.isdecimal() else None


def _swapped_bytes() -> Optional[int]:
    """Give what was moved to swap and back."""
    pages = [(_find_line("vmstat", key) or [""])[0] for key in ("pswpin", "pswpout")]
    if not all(each.isdecimal() for each in pages):
        return None
    return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE")


def _find_line(path: str, key: str) -> Optional[List[str]]:
    """Give the words after the first in the line of a file of /proc that begins with a key."""
    try:
        with Path(_PROC, path).open(encoding="ascii", errors="replace") as file:
            for line in file:
                words = line.split()
                if words and words[0] == key:
                    return words[1:]
    except OSError:
        pass  # not Linux, not in this kernel, or hidden from this user
    return None


def _read_integers(paths: Iterable[Path]) -> List[int]:
    values = []
    for path in paths:
        try:
            values.append(int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):  # noqa: PERF203 - a few files, each may be a sensor asleep
            continue
    return values


class Meter:
    """The energy taken since it was made, where a counter or a sensor tells it.

    First the processor's own counters (RAPL: its packages, and memory where it has a counter),
    else the first sensor of Texas Instruments' INA family, which boards carry in their supply: its
    counter, or its power, taken as even from one look to the next. `time_ns` is of the last look.
    """

    def __init__(self) -> None:
        self.source = None  # type: Optional[str]
        self.reason = None  # type: Optional[str]
        self._counters = []  # type: List[Tuple[Path, int]]  # with where each begins anew
        self._power = None  # type: Optional[Path]
        self._total_uj = 0.0
        self._find()
        self._last = self._look()
        if self._last is None:
            self._deny("it cannot be read")
        self.time_ns = time.perf_counter_ns()

    def read(self) -> Optional[int]:
        """Give the microjoules so far; None where nothing tells them."""
        now, now_ns = self._look(), time.perf_counter_ns()
        if self._last is None or now is None:
            return None
        if self._power is not None:
            self._total_uj += (self._last[0] + now[0]) / 2 * (now_ns - self.time_ns) / 1e9
        else:
            for (_, span), last, value in zip(self._counters, self._last, now):
                if value >= last:
                    self._total_uj += value - last
                elif span:  # it began anew; a counter without a span was set back
                    self._total_uj += span - last + value
        self._last, self.time_ns = now, now_ns
        return int(self._total_uj)

    def _look(self) -> Optional[List[int]]:
        paths = [path for path, _ in self._counters] + ([self._power] if self._power else [])
        values = [_read_integer(path) for path in paths]
        told = [each for each in values if each is not None]
        return told if told and len(told) == len(values) else None

    def _deny(self, reason: str) -> None:
        if self.source is not None:
            self.reason = f"{self.source}: {reason}"
        self.source, self._counters, self._power = None, [], None

    def _find(self) -> None:
        zones = sorted(Path(_SYS).glob("class/powercap/intel-rapl:*"))
        named = [(each, _read_text(each / "name") or "") for each in zones]
        used = [(e, name) for e, name in named if name.startswith("package") or name == "dram"]
        if used:
            self.source = "RAPL " + ", ".join(name for _, name in used)
            spans = [_read_integer(each / "max_energy_range_uj") for each, _ in used]
            self._counters = [
                (each / "energy_uj", span or 0) for (each, _), span in zip(used, spans)
            ]
            if all(os.access(str(path), os.R_OK) for path, _ in self._counters):
                return
            self._deny("only root may read it, unless `sudo chmod a+r` lets others")
        for chip in sorted(Path(_SYS).glob("class/hwmon/hwmon*")):
            name = _read_text(chip / "name") or ""
            counter, power = chip / "energy1_input", chip / "power1_input"
            if not name.startswith("ina") or not (counter.exists() or power.exists()):
                continue
            self.source, self.reason = f"{name} of {chip.name}", None
            if counter.exists():
                self._counters = [(counter, 0)]
            else:
                self._power = power
            return
        self.reason = self.reason or "no RAPL in /sys/class/powercap, no INA sensor in hwmon"


def _read_text(path: Path) -> Optional[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _read_integer(path: Path) -> Optional[int]:
    text = _read_text(path) or ""
    return int(text) if text.isdecimal() else None


def _watch_idle(seconds: float) -> Dict[str, Any]:
    """Tell the energy taken while this process sleeps."""
    time.sleep(_SETTLE_SECONDS)  # its own start is no idling
    meter = Meter()
    start = meter.time_ns
    energy_uj = meter.read()
    while energy_uj is not None and meter.time_ns - start < seconds * 1e9:
        time.sleep(_IDLE_STEP_SECONDS)
        energy_uj = meter.read()
    idle = {"event": "idle", "wall_ns": meter.time_ns - start, "energy_uj": energy_uj}
    return dict(idle, energy_source=meter.source, energy_reason=meter.reason)


def _peak_memory() -> Tuple[Optional[int], Optional[str]]:
    """Give this process's peak resident memory in bytes, or None and why it is unknown."""
    try:
        with Path("/proc/self/status").open(encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024, None
    except (OSError, ValueError, IndexError):
        pass  # not Linux, or hidden: the second source
    try:
        import resource  # noqa: PLC0415 - absent on some systems
    except ImportError:
        return None, "neither /proc/self/status nor getrusage tells it"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB elsewhere (getrusage(2) of each).
    return (peak if sys.platform == "darwin" else peak * 1024) or None, None if peak else "zero"


def _open_output() -> Emit:
    """Keep standard output for events: what libraries print goes to standard error."""
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(event: Dict[str, Any]) -> None:
        channel.write(json.dumps(event, separators=(",", ":")) + "\n")
        channel.flush()

    return emit


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], _open_output()))
