"""The runtime that a device would get, and what is to be said of it; pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edgepack.device.preflight.finding import Finding, Severity, Topic
from edgepack.device.runtime.native import ENGINE, VERSION, NativeRuntime
from edgepack.device.runtime.op_support import find_op_support, judge_ops
from edgepack.device.runtime.provision import RunnerChoice, choose_engine
from edgepack.device.runtime.wheels import ARMV7_FEATURES, Runtime, Wheel, choose_runtime
from edgepack.device.survey.facts import DeviceFacts
from edgepack.errors import ProvisionError
from edgepack.profile import missing_features
from edgepack.workload import Workload

_BLOCK_BYTES: Final = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Prospect:
    """The runtime that would be installed.

    Attributes:
        name: such as `ai-edge-litert`.
        version: of it.
        folder_name: of its folder on a device.
        wheels: what is sent of it.
        xnnpack: whether it has XNNPACK's kernels; None for unknown.
        is_native: whether the native runner loads it, and no Python.
    """

    name: str
    version: str
    folder_name: str
    wheels: tuple[Wheel, ...]
    xnnpack: bool | None
    is_native: bool

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"

    @property
    def disk_bytes(self) -> int:
        """Room it takes on a device, about."""
        return sum(wheel.kept_bytes + wheel.kept_files * _BLOCK_BYTES for wheel in self.wheels)


def find_prospect(
    facts: DeviceFacts, *, runner: RunnerChoice = RunnerChoice.AUTO
) -> Prospect | None:
    """Give the runtime that would be installed; None where none fits."""
    try:
        return _describe(choose_engine(facts, runner=runner))
    except ProvisionError:
        return None


def _describe(runtime: Runtime | NativeRuntime) -> Prospect:
    if isinstance(runtime, NativeRuntime):
        return Prospect(
            name=ENGINE,
            version=VERSION,
            folder_name=runtime.folder_name,
            wheels=(runtime.wheel,),
            xnnpack=runtime.wheel.xnnpack,
            is_native=True,
        )
    return Prospect(
        name=runtime.engine.project,
        version=runtime.engine.version,
        folder_name=runtime.folder_name,
        wheels=runtime.wheels,
        xnnpack=runtime.engine.xnnpack,
        is_native=False,
    )


def judge_runtime(facts: DeviceFacts, runner: RunnerChoice) -> Iterator[Finding]:
    """Refuse a device that no runtime fits, and say what is to be known of the one that does."""
    try:
        runtime = _describe(choose_engine(facts, runner=runner))
    except ProvisionError as error:
        yield refused_runtime(error)
        return
    if runtime.is_native and runner is RunnerChoice.AUTO:
        yield from _judge_python(facts, runtime)
    yield from _judge_libraries(facts, runtime)
    missing = missing_features(ARMV7_FEATURES, facts.cpu_features)
    if facts.arch == "armv7l" and facts.cpu_features and missing and not runtime.is_native:
        yield Finding(
            severity=Severity.ERROR,
            topic=Topic.RUNTIME,
            expected=f"the CPU features {' and '.join(ARMV7_FEATURES)}, which 32-bit runtimes are "
            "compiled for",
            found=f"the CPU has no {' and no '.join(missing)}",
            fix="No runtime runs on this core; use another board.",
        )
    if facts.arch == "armv7l" and facts.kernel_arch == "aarch64":
        yield Finding(
            severity=Severity.NOTE,
            topic=Topic.RUNTIME,
            expected="a 64-bit system on a 64-bit core",
            found="the userland is 32-bit under a 64-bit kernel",
            fix="A 64-bit system gets a newer runtime with quicker kernels.",
        )
    if runtime.xnnpack is False:
        yield Finding(
            severity=Severity.NOTE,
            topic=Topic.RUNTIME,
            expected="a runtime with XNNPACK's kernels",
            found=f"{runtime.label} for {facts.arch} has none",
            fix="Latencies are those of the plain kernels; compare them with their like only.",
        )


def _judge_libraries(facts: DeviceFacts, runtime: Prospect) -> Iterator[Finding]:
    """Warn where a library's version is not known: the runtime may not load after it was sent."""
    needs = [version for wheel in runtime.wheels if (version := wheel.needs.glibc) is not None]
    told_version = facts.libc_version or "<"
    if facts.libc != "glibc" or not needs or not told_version.startswith("<"):
        return
    oldest = ".".join(map(str, max(needs)))
    told = f"one older than {told_version[1:]}" if told_version[1:] else "one"
    yield Finding(
        severity=Severity.WARNING,
        topic=Topic.RUNTIME,
        expected=f"glibc {oldest} or newer, which {runtime.label} needs",
        found=f"the device has {told} and tells no more",
        fix="Whether it loads shows once it was sent; what is not right is not in use then.",
    )


def refused_runtime(error: ProvisionError) -> Finding:
    """Give the finding for a device that no runtime fits."""
    return Finding(
        severity=Severity.ERROR,
        topic=Topic.RUNTIME,
        expected="a system and a Python that a runtime is made for",
        found=error.message,
        fix=error.remedy,
        sentence=error.message,
    )


def _judge_python(facts: DeviceFacts, runtime: Prospect) -> Iterator[Finding]:
    try:
        choose_runtime(facts)
    except ProvisionError as error:
        yield Finding(
            severity=Severity.NOTE,
            topic=Topic.PYTHON,
            expected="a Python that a runtime is made for",
            found=error.message,
            fix=f"The native runner measures there with {runtime.label}. For Python programs of "
            f"your own: {error.remedy}",
        )


def judge_workload(runtime: Prospect, workload: Workload) -> Iterator[Finding]:
    """Refuse ops that the runtime does not load or is known to get wrong."""
    support = find_op_support(runtime.name, runtime.version)
    if support is None:
        return
    for fault in judge_ops(workload.ops, support):
        yield Finding(
            severity=Severity.ERROR,
            topic=Topic.OPS,
            expected=fault.expected,
            found=fault.found,
            fix=fault.fix,
        )
