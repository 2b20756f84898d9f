"""Target profiles: what is known of a kind of device before one is met.

A profile describes a kind of device, never one device: addresses, users and keys are
refused. Files are TOML; the file name is the profile's id. See `docs/targets.md`.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from edgepack._fields import Fields, join_faults
from edgepack.errors import ProfileError

SCHEMA: Final = 1
_ID: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_ROOT: Final = re.compile(r"(~|)(/[A-Za-z0-9._-]+)+")

# Arm Architecture Reference Manual for A-profile: AArch32 state of an Armv8 core has these.
_IMPLIED: Final = {
    "asimd": frozenset({"neon"}),
    "fp": frozenset({"vfp", "vfpv3", "vfpv4", "vfpd32"}),
}


class Architecture(StrEnum):
    """Architecture of a device's userland, as in the ELF header of its shell."""

    AARCH64 = "aarch64"
    ARMV7L = "armv7l"
    X86_64 = "x86_64"


class OperatingSystem(StrEnum):
    """What kernel and C library family a kind of device runs."""

    LINUX = "linux"
    ANDROID = "android"
    MACOS = "macos"


class Scheme(StrEnum):
    """How weights and activations are represented."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    DYNAMIC_RANGE = "dynamic_range"
    WEIGHT_ONLY_INT8 = "weight_only_int8"
    INT8 = "int8"
    INT16X8 = "int16x8"
    AS_IS = "as_is"


class EngineName(StrEnum):
    """Inference engines a bundle can hold an artifact for."""

    TFLITE = "tflite"


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """The device's silicon.

    Attributes:
        arch: architecture of the userland.
        ram_mib: RAM of the smallest model of this kind.
        cpu: name of the core, such as `Cortex-A72`.
        features: CPU features that must be there, in the kernel's spelling.
        num_cores: CPU cores.
    """

    arch: Architecture
    ram_mib: int
    cpu: str = ""
    features: tuple[str, ...] = ()
    num_cores: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a variant may cost on a kind of device; None is no limit.

    Attributes:
        bundle_mib: size of the bundle.
        peak_memory_mib: of the process that runs the model.
        p95_ms: 95th percentile of latency.
        accuracy_drop: what was lost against the float model: percentage points of accuracy, or
            points of the user's own metric.
        slowdown: how much slower the median may be than an earlier measurement's, as a share.
    """

    bundle_mib: float | None = None
    peak_memory_mib: float | None = None
    p95_ms: float | None = None
    accuracy_drop: float | None = None
    slowdown: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkDefaults:
    """Launches and timed seconds a launch that suit this kind of device."""

    num_launches: int = 10
    min_runs: int = 64
    min_seconds: float = 1.0
    max_seconds: float = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetProfile:
    """A kind of device that models are packed for.

    Attributes:
        id: the profile's file name without `.toml`.
        description: one line for people.
        hardware: the silicon.
        schemes: quantization schemes worth trying, best first.
        os: operating system family.
        engines: inference engines, best first.
        num_threads: threads inference runs with; 0 is as many as cores.
        limits: what a variant may cost.
        deploy_root: folder on the device for releases and runtimes; `~` is the login's home.
        benchmark: how long to measure.
        require_signature: whether only bundles that an allowed signer signed are deployed.
    """

    id: str
    description: str
    hardware: Hardware
    schemes: tuple[Scheme, ...]
    os: OperatingSystem = OperatingSystem.LINUX
    engines: tuple[EngineName, ...] = (EngineName.TFLITE,)
    num_threads: int = 1
    limits: Limits = Limits()
    deploy_root: str = "~/.edgepack"
    benchmark: BenchmarkDefaults = BenchmarkDefaults()
    require_signature: bool = False


_NOT_A_KIND: Final = dict.fromkeys(
    (
        *("address", "host", "hostname", "ip", "port", "user", "username", "password"),
        *("key", "identity", "identity_file", "ssh", "token"),
    ),
    "a profile describes a kind of device; give addresses and credentials on the command line "
    "or in your SSH configuration",
)


def parse_profile(text: str, *, profile_id: str) -> TargetProfile:
    """Read a profile from TOML text.

    Raises:
        ProfileError: not TOML, or breaking the schema; all faults are listed.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(
            f"target profile {profile_id!r}: not valid TOML: {error}",
            remedy="Mend the line; `edgepack targets show raspberry-pi-4` prints an example.",
        ) from error
    fields = Fields(table)
    profile = read_profile(fields, profile_id=profile_id)
    if fields.faults:
        raise ProfileError(
            join_faults(f"target profile {profile_id!r}", fields.faults),
            remedy="Mend the keys named above; docs/targets.md describes each.",
        )
    return profile


def parse_limits(text: str, *, name: str) -> Limits:
    """Read a file of limits alone: TOML with one table, `limits`, as in a profile.

    Raises:
        ProfileError: not TOML, or breaking the schema; all faults are listed.
    """
    remedy = "Write it as the [limits] of a profile; docs/gating.md has an example."
    try:
        fields = Fields(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{name}: not valid TOML: {error}", remedy=remedy) from error
    limits = read_limits(fields.table("limits", required=True))
    fields.close()
    if fields.faults:
        raise ProfileError(join_faults(name, fields.faults), remedy=remedy)
    return limits


def read_profile(fields: Fields, *, profile_id: str) -> TargetProfile:
    """Read a profile from a TOML or JSON table, noting faults in `fields`."""
    if not _ID.fullmatch(profile_id):
        fields.faults.append(
            f"file name: expected lowercase letters, digits, '.' and '-', not {profile_id!r}"
        )
    schema = fields.integer("schema")
    if type(fields.raw("schema")) is int and schema != SCHEMA:
        fields.fault("schema", f"expected {SCHEMA}, not {schema}")
    description = fields.text("description")
    system = fields.choice("os", OperatingSystem, OperatingSystem.LINUX)
    hardware = _read_hardware(fields.table("hardware", required=True))
    quantization = fields.table("quantization", required=True)
    schemes = quantization.choices("schemes", Scheme)
    if quantization.raw("schemes") == []:
        quantization.fault("schemes", "expected at least one scheme")
    quantization.close(_NOT_A_KIND)
    runtime = fields.table("runtime")
    engines = runtime.choices("engines", EngineName, (EngineName.TFLITE,))
    if runtime.raw("engines") == []:
        runtime.fault("engines", "expected at least one engine")
    num_threads = runtime.integer("num_threads", 1, minimum=0, maximum=1024)
    runtime.close(_NOT_A_KIND)
    limits = read_limits(fields.table("limits"))
    deploy = fields.table("deploy")
    root = deploy.text("root", "~/.edgepack")
    if not _ROOT.fullmatch(root) or ".." in root.split("/"):
        deploy.fault("root", f"expected an absolute path or one below '~/', not {root!r}")
    require_signature = deploy.boolean("require_signature", False)
    deploy.close(_NOT_A_KIND)
    benchmark = _read_benchmark(fields.table("benchmark"))
    fields.close(_NOT_A_KIND)
    return TargetProfile(
        id=profile_id,
        description=description,
        hardware=hardware,
        schemes=schemes,
        os=system,
        engines=engines,
        num_threads=num_threads,
        limits=limits,
        deploy_root=root,
        benchmark=benchmark,
        require_signature=require_signature,
    )


def missing_features(required: Sequence[str], present: Sequence[str]) -> tuple[str, ...]:
    """Give the required CPU features that a kernel's list lacks.

    A 64-bit kernel lists Armv8's names even to 32-bit programs (arch/arm64/kernel/cpuinfo.c),
    so the 32-bit names that each Armv8 core has are taken from those.
    """
    there = set(present)
    for name in present:
        there |= _IMPLIED.get(name, frozenset())
    return tuple(name for name in required if name not in there)


def profile_to_json(profile: TargetProfile) -> dict[str, object]:
    """Give a profile as a table of the file's schema, every key with a value written out.

    `read_profile` reads it back. The id is the file's name, so it is no part of the table.
    """
    return {
        "benchmark": {
            "max_seconds": profile.benchmark.max_seconds,
            "min_runs": profile.benchmark.min_runs,
            "min_seconds": profile.benchmark.min_seconds,
            "num_launches": profile.benchmark.num_launches,
        },
        # Only where it holds: bundles of earlier versions say nothing of it.
        "deploy": {"root": profile.deploy_root}
        | ({"require_signature": True} if profile.require_signature else {}),
        "description": profile.description,
        "hardware": {
            "arch": profile.hardware.arch.value,
            "cpu": profile.hardware.cpu,
            "features": list(profile.hardware.features),
            "num_cores": profile.hardware.num_cores,
            "ram_mib": profile.hardware.ram_mib,
        },
        "limits": {
            key: value for key, value in sorted(asdict(profile.limits).items()) if value is not None
        },
        "os": profile.os.value,
        "quantization": {"schemes": [scheme.value for scheme in profile.schemes]},
        "runtime": {
            "engines": [engine.value for engine in profile.engines],
            "num_threads": profile.num_threads,
        },
        "schema": SCHEMA,
    }


def profile_digest(profile: TargetProfile) -> str:
    """Give the sha256 hex digest of what a profile says, whatever its file's spelling."""
    text = json.dumps(profile_to_json(profile), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_hardware(fields: Fields) -> Hardware:
    hardware = Hardware(
        arch=fields.choice("arch", Architecture),
        ram_mib=fields.integer("ram_mib", minimum=1),
        cpu=fields.text("cpu", "", empty=True),
        features=fields.texts("features", ()),
        num_cores=fields.integer("num_cores", 1, minimum=1, maximum=1024),
    )
    fields.close(_NOT_A_KIND)
    return hardware


def read_limits(fields: Fields) -> Limits:
    """Read the `limits` of a profile or a file of their own, noting faults in `fields`."""
    limits = Limits(
        bundle_mib=fields.optional_number("bundle_mib", minimum=0.001),
        peak_memory_mib=fields.optional_number("peak_memory_mib", minimum=0.001),
        p95_ms=fields.optional_number("p95_ms", minimum=0.001),
        accuracy_drop=fields.optional_number("accuracy_drop", minimum=0),
        slowdown=fields.optional_number("slowdown", minimum=0),
    )
    fields.close(_NOT_A_KIND)
    return limits


def _read_benchmark(fields: Fields) -> BenchmarkDefaults:
    default = BenchmarkDefaults()
    benchmark = BenchmarkDefaults(
        num_launches=fields.integer("num_launches", default.num_launches, minimum=1, maximum=1000),
        min_runs=fields.integer("min_runs", default.min_runs, minimum=1, maximum=1_000_000),
        min_seconds=fields.number("min_seconds", default.min_seconds, minimum=0, maximum=3600),
        max_seconds=fields.number("max_seconds", default.max_seconds, minimum=1, maximum=86400),
    )
    fields.close(_NOT_A_KIND)
    return benchmark
