"""Runtimes on the device: installed from here, once a version, and proved by importing them."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgepack._fields import Fields
from edgepack.cache import Cache
from edgepack.device.runtime.android import AndroidRuntime, check_android, install_android
from edgepack.device.runtime.native import (
    ENGINE,
    NativeInstallation,
    NativeRuntime,
    choose_native,
    install_native,
)
from edgepack.device.runtime.wheel_files import fetch_wheel, unpack_wheel
from edgepack.device.runtime.wheels import Runtime, choose_runtime, judge_needs
from edgepack.device.store.layout import Layout
from edgepack.device.store.payload import PlacedFile, describe_file
from edgepack.device.store.placing import place_proved
from edgepack.device.store.staging import TransferCallback
from edgepack.device.survey.elf import SymbolNeeds, is_elf, read_needs
from edgepack.device.survey.facts import DeviceFacts, PythonFacts
from edgepack.device.wire.address import subject
from edgepack.device.wire.sections import clean_text
from edgepack.device.wire.transport import CommandResult, Device
from edgepack.errors import ProvisionError

_CHECK_SECONDS: Final = 120.0
_KILLED: Final = 137  # by SIGKILL, as Linux does when memory runs out
_OUT_OF_MEMORY: Final = re.compile(r"MemoryError|[Cc]annot allocate memory")

# `argv`: the site folder, the module, the engine's package. What is there must be what runs:
# the folder stands first on the path, and the module must come from it. Its date tells when it
# was used last (see `holdings`).
_CHECK: Final = """
import importlib, json, os, sys
site, name = sys.argv[1], sys.argv[2]
if not os.path.isdir(site):
    sys.exit(3)
sys.path.insert(0, site)
import numpy
module = importlib.import_module(name)
if not os.path.realpath(module.__file__).startswith(os.path.realpath(site) + os.sep):
    sys.exit("another %s: %s" % (name, module.__file__))
module.Interpreter
try:
    os.utime(os.path.dirname(site))
except OSError:
    pass
print(json.dumps({"numpy": numpy.__version__}))
"""


class RunnerChoice(StrEnum):
    """Which runner the user wants: Python's wherever one suits, or the one or the other."""

    AUTO = "auto"
    PYTHON = "python"
    NATIVE = "native"


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """An inference runtime that is installed on a device and was loaded there.

    It is imported by the device's Python, or loaded by the native runner, which needs none;
    what belongs to the other way is None.

    Attributes:
        name: such as `ai-edge-litert`.
        version: of it.
        module: what holds `Interpreter`, such as `ai_edge_litert.interpreter`.
        python: absolute path of the interpreter on the device.
        python_version: such as `3.11.2`.
        site: absolute folder it is in; a Python puts it first on `sys.path`.
        numpy: version of the numpy it runs with.
        xnnpack: whether it holds XNNPACK's kernels.
        sha256: digest of all that was installed.
        runtime_bytes: bytes sent to install it just now; 0 when it was there.
        program: absolute path of the native runner.
        library: absolute path of the library that the native runner loads.
    """

    name: str
    version: str
    module: str | None
    python: str | None
    python_version: str | None
    site: str
    numpy: str | None
    xnnpack: bool | None
    sha256: str
    runtime_bytes: int
    program: str | None = None
    library: str | None = None

    @property
    def runner(self) -> RunnerChoice:
        """Whose runner it is."""
        return RunnerChoice.PYTHON if self.program is None else RunnerChoice.NATIVE


def to_json(engine: Engine) -> dict[str, object]:
    """Give an engine as JSON values, in the order of the fields."""
    return dataclasses.asdict(engine)


def parse_engine(table: Mapping[str, object]) -> Engine:
    """Read back what `to_json` gave.

    Raises:
        ProvisionError: another shape.
    """
    fields = Fields(table)

    def text(key: str) -> str | None:
        return None if fields.raw(key) is None else fields.text(key)

    has_xnnpack = fields.raw("xnnpack") is not None
    engine = Engine(
        name=fields.text("name"),
        version=fields.text("version"),
        module=text("module"),
        python=text("python"),
        python_version=text("python_version"),
        site=fields.text("site"),
        numpy=text("numpy"),
        xnnpack=fields.boolean("xnnpack") if has_xnnpack else None,
        sha256=fields.text("sha256"),
        runtime_bytes=fields.integer("runtime_bytes", minimum=0),
        program=text("program"),
        library=text("library"),
    )
    fields.close()
    if fields.faults:
        raise ProvisionError(
            f"engine: {'; '.join(fields.faults)}",
            remedy="The record was changed or comes from another version; measure again.",
        )
    return engine


def choose_engine(
    facts: DeviceFacts, *, runner: RunnerChoice = RunnerChoice.AUTO
) -> Runtime | NativeRuntime:
    """Choose what runs models on a device: a runtime for its Python, else the native runner's.

    Args:
        facts: what `read_facts` said of it.
        runner: whose runner it shall be.

    Raises:
        ProvisionError: nothing fits; says why of each that was allowed.
    """
    if runner is RunnerChoice.NATIVE:
        return choose_native(facts)
    try:
        return choose_runtime(facts)
    except ProvisionError as error:
        if runner is RunnerChoice.PYTHON:
            raise
        try:
            return choose_native(facts)
        except ProvisionError as other:
            if other.message == error.message:  # no runtime of any kind for such a system
                raise error from other
            raise ProvisionError(
                f"{error.message}; without Python: {other.message}", remedy=error.remedy
            ) from error


def fitting_runtimes(facts: DeviceFacts) -> frozenset[str]:
    """Name the folders of the runtimes that this EdgePack installs on such a device."""
    names: set[str] = set()
    for choice in RunnerChoice:
        try:
            names.add(choose_engine(facts, runner=choice).folder_name)
        except ProvisionError:
            continue  # it has none of that kind
    return frozenset(names)


def provision(
    device: Device,
    facts: DeviceFacts,
    *,
    root: str,
    cache: Cache,
    on_progress: Callable[[str], None],
    on_transfer: TransferCallback | None = None,
    runner: RunnerChoice = RunnerChoice.AUTO,
    android: AndroidRuntime | None = None,
) -> Engine:
    """Make sure that a runtime which fits the device is installed there and can be loaded.

    The device needs neither internet nor root: wheels come from this machine. Where it has no
    Python that suits, the native runner is compiled here and sent.

    Args:
        device: a connected device.
        facts: what `read_facts` said of it.
        root: absolute deploy root, as in the facts.
        cache: where downloaded wheels are kept.
        on_progress: called with each step in words.
        on_transfer: called as bytes go out.
        runner: whose runner it shall be.
        android: what the user gave for stock Android, instead of all others.

    Raises:
        ProvisionError: nothing fits, nothing can be downloaded, or it does not load there.
        DeployError: no room or permission.
        ConnectError: the link was lost; nothing half-installed is in use.
    """
    if android is not None:
        check_android(facts, android)
        given = install_android(
            device, android, root=root, on_progress=on_progress, on_transfer=on_transfer
        )
        return _describe_native(given, sha256=android.digest, xnnpack=None)
    runtime = choose_engine(facts, runner=runner)
    if isinstance(runtime, NativeRuntime):
        installed = install_native(
            device,
            runtime,
            root=root,
            cache=cache,
            on_progress=on_progress,
            on_transfer=on_transfer,
        )
        return _describe_native(installed, sha256=runtime.digest, xnnpack=runtime.wheel.xnnpack)
    python = facts.python
    if python is None:
        raise ProvisionError("the device has no Python", remedy="Install python3 on it.")
    return _install_python(
        device,
        facts,
        runtime,
        python,
        root=root,
        cache=cache,
        on_progress=on_progress,
        on_transfer=on_transfer,
    )


def _describe_native(installed: NativeInstallation, *, sha256: str, xnnpack: bool | None) -> Engine:
    return Engine(
        name=ENGINE,
        version=installed.version,
        module=None,
        python=None,
        python_version=None,
        site=installed.folder,
        numpy=None,
        xnnpack=xnnpack,
        sha256=sha256,
        runtime_bytes=installed.sent_bytes,
        program=installed.program,
        library=installed.library,
    )


def _install_python(
    device: Device,
    facts: DeviceFacts,
    runtime: Runtime,
    python: PythonFacts,
    *,
    root: str,
    cache: Cache,
    on_progress: Callable[[str], None],
    on_transfer: TransferCallback | None,
) -> Engine:
    layout = Layout(root=root)
    folder = f"{layout.runtimes}/{runtime.folder_name}"
    present = _import_runtime(device, python, runtime, f"{folder}/site")
    if present.exit_code == 0:
        numpy = _read_numpy(device, python, present)
        return _describe(runtime, python, folder=folder, numpy=numpy, runtime_bytes=0)
    if _lacks_memory(present):
        # Sending what may well be there would mend nothing.
        raise _refused(device, python, runtime, present, sent=False)
    files = _collect_files(runtime, facts, cache, on_progress)
    size = sum(file.num_bytes for file in files) / 2**20
    engine = runtime.engine
    on_progress(f"installing {engine.project} {engine.version} on {device.name} ({size:.0f} MiB)")
    numpy, transfer = place_proved(
        device,
        layout,
        folder=folder,
        files=files,
        prove=lambda staged: _prove_runtime(device, python, runtime, f"{staged}/site"),
        python=python.path,
        on_progress=on_transfer,
    )
    return _describe(runtime, python, folder=folder, numpy=numpy, runtime_bytes=transfer.sent_bytes)


def _describe(
    runtime: Runtime, python: PythonFacts, *, folder: str, numpy: str, runtime_bytes: int
) -> Engine:
    return Engine(
        name=runtime.engine.project,
        version=runtime.engine.version,
        module=runtime.module,
        python=python.path,
        python_version=".".join(map(str, python.version)),
        site=f"{folder}/site",
        numpy=numpy,
        xnnpack=runtime.engine.xnnpack,
        sha256=runtime.digest,
        runtime_bytes=runtime_bytes,
    )


def _collect_files(
    runtime: Runtime, facts: DeviceFacts, cache: Cache, on_progress: Callable[[str], None]
) -> tuple[PlacedFile, ...]:
    """Download and open the wheels; refuse what the device's libraries cannot load."""
    placed: list[PlacedFile] = []
    needs = SymbolNeeds()
    for wheel in runtime.wheels:
        path = cache.root / "wheels" / wheel.file
        if not path.is_file():
            on_progress(f"downloading {wheel.file} ({wheel.num_bytes / 2**20:.0f} MiB)")
        for name, content in unpack_wheel(fetch_wheel(wheel, path.parent)):
            placed.append(describe_file(f"site/{name}", content))
            if is_elf(content):
                needs = needs.join(_read_needs(name, content))
    unmet = judge_needs(needs, facts)
    if unmet:
        raise ProvisionError(
            f"{runtime.engine.project} {runtime.engine.version} {unmet}",
            remedy="Upgrade the device's system.",
        )
    return tuple(placed)


def _read_needs(name: str, content: bytes) -> SymbolNeeds:
    try:
        return read_needs(content)
    except ValueError as error:
        raise ProvisionError(f"{name}: {error}", remedy="Install EdgePack again.") from error


def _prove_runtime(device: Device, python: PythonFacts, runtime: Runtime, site: str) -> str:
    """Import the runtime on the device and give its numpy's version, or raise what it said."""
    result = _import_runtime(device, python, runtime, site)
    if result.exit_code == 0:
        return _read_numpy(device, python, result)
    raise _refused(device, python, runtime, result, sent=True)


def _lacks_memory(result: CommandResult) -> bool:
    return result.exit_code == _KILLED or _OUT_OF_MEMORY.search(result.stderr) is not None


def _refused(
    device: Device, python: PythonFacts, runtime: Runtime, result: CommandResult, *, sent: bool
) -> ProvisionError:
    """Make the error of a runtime that cannot be imported, in the device's last word."""
    said = clean_text((result.stderr.strip().splitlines() or [f"exit {result.exit_code}"])[-1])
    if result.exit_code == _KILLED:
        said = "it was killed"
    remedy = "Install what is named there on the device, then repeat"
    if _lacks_memory(result):
        remedy = "Free memory on the device, or use `--runner native`, which needs less"
    name = f"{runtime.engine.project} {runtime.engine.version}"
    if not sent:
        return ProvisionError(
            f"{subject(device.name)} {python.path} cannot import {name}: {said}",
            remedy=f"{remedy}.",
        )
    return ProvisionError(
        f"{subject(device.name)} {name} was sent, but {python.path} cannot import it: {said}",
        remedy=f"{remedy}; nothing of the runtime is in use.",
    )


def _import_runtime(
    device: Device, python: PythonFacts, runtime: Runtime, site: str
) -> CommandResult:
    """Import the runtime: `-I` keeps out the environment and the user's site-packages.

    Python leaves the compiled modules beside the sources, so that no launch of a benchmark
    compiles numpy again.
    """
    return device.run(
        [python.path, "-I", "-c", _CHECK, site, runtime.module],
        timeout_seconds=_CHECK_SECONDS,
    )


def _read_numpy(device: Device, python: PythonFacts, result: CommandResult) -> str:
    try:
        answer = json.loads(result.text.strip().splitlines()[-1])
        return clean_text(str(answer["numpy"]), limit=40)
    except (ValueError, LookupError, TypeError) as error:
        raise ProvisionError(
            f"{subject(device.name)} {python.path} answered {clean_text(result.text, limit=80)!r} "
            "to the import check",
            remedy="Look at what that interpreter is; `python3 -c 'print(1)'` must print 1.",
        ) from error
