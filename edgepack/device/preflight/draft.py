"""A target profile drafted from what a device says of itself; pure.

The same facts give the same text. Each line says whether it was read or is a default that the
user should look at.
"""

import json
import re
from typing import Final

from edgepack.device.preflight.prospect import find_prospect
from edgepack.device.survey.facts import DeviceFacts
from edgepack.errors import DeviceError
from edgepack.profile import SCHEMA, Architecture, TargetProfile, missing_features, parse_profile

# What the runtime's kernels are chosen by (XNNPACK's hardware-config.c), in the kernel's spelling.
# Others are not required: a profile stands for a kind of device, not for one.
_KERNEL_FEATURES: Final = {
    Architecture.AARCH64: ("asimd", "asimdhp", "asimddp", "i8mm", "sve"),
    Architecture.ARMV7L: ("neon", "vfpv4"),
    Architecture.X86_64: ("ssse3", "sse4_1", "avx", "f16c", "fma", "avx2", "avx512f"),
}
_SCHEMES: Final = {
    # Dynamic-range kernels were slower than float on laptops in our measurements.
    Architecture.X86_64: ("int8", "float16", "dynamic_range", "float32"),
    Architecture.AARCH64: ("int8", "dynamic_range", "float16", "float32"),
    Architecture.ARMV7L: ("int8", "dynamic_range", "float16", "float32"),
}
_SMALLEST_RAM_MIB: Final = 512
_SLUG: Final = re.compile(r"[^a-z0-9]+")
_LONGEST_ID: Final = 48


def suggest_id(facts: DeviceFacts) -> str:
    """Give an id after the board's model, else after core and architecture."""
    for text in (facts.board, f"{facts.cpu} {facts.arch}" if facts.cpu else None, facts.arch):
        slug = _SLUG.sub("-", (text or "").lower()).strip("-")[:_LONGEST_ID].strip("-")
        if slug:
            return slug
    return "device"


def draft_profile(facts: DeviceFacts, *, profile_id: str) -> tuple[TargetProfile, str]:
    """Draft a target profile.

    Args:
        facts: what the device is.
        profile_id: what its file will be called, without `.toml`.

    Returns:
        The profile, and its TOML text with comments.

    Raises:
        DeviceError: no profile can describe the device.
        ProfileError: not an id.
    """
    if facts.arch not in set(Architecture) or facts.system not in {"Linux", "Darwin"}:
        raise DeviceError(
            f"a target profile: expected Linux or macOS on {', '.join(Architecture)}, but the "
            f"device is {facts.system} {facts.arch}",
            remedy="No runtime is made for it; use another board, or another system on this one.",
        )
    arch = Architecture(facts.arch)
    lines = [
        '# Drafted by `edgepack targets probe`: what is marked "read" is the device\'s own word,',
        '# what is marked "default" should be looked at. docs/targets.md describes each key.',
        *_facts_lines(facts),
        f"schema = {SCHEMA}",
        f"description = {_quote(_describe(facts))}  # read",
        *(['os = "macos"  # read'] if facts.system == "Darwin" else []),
        *(['os = "android"  # read'] if facts.libc == "bionic" else []),
        "",
        "[hardware]",
        f'arch = "{arch}"  # read: of the userland, from the header of its shell',
        *_hardware_lines(facts, arch),
        "",
        "[quantization]",
        *_scheme_lines(facts, arch),
        "",
        "[runtime]",
        *_thread_lines(facts, arch),
        "",
        "[limits]",
        "# default: none. What a variant may cost at most:",
        "# bundle_mib = 16",
        "# peak_memory_mib = 256",
        "# p95_ms = 50",
        "",
        "[deploy]",
        'root = "~/.edgepack"  # default: below the home of the login',
    ]
    text = "\n".join(lines) + "\n"
    return parse_profile(text, profile_id=profile_id), text


def _facts_lines(facts: DeviceFacts) -> list[str]:
    libc = f"{facts.libc or 'unknown C library'} {facts.libc_version or ''}".strip()
    python = facts.python
    version = ".".join(map(str, python.version)) if python is not None else None
    runtime = find_prospect(facts)
    return [
        f"# read: {facts.os_name or facts.system}, {libc}, "
        + (f"Python {version}" if version else "no Python")
        + (f", {facts.kernel_arch} kernel" if facts.kernel_arch != facts.arch else ""),
        f"# runtime: {runtime.label}{', without Python' if runtime.is_native else ''}"
        if runtime is not None
        else "# runtime: none fits this system; `edgepack doctor` says why",
    ]


def _describe(facts: DeviceFacts) -> str:
    name = facts.board or facts.cpu or facts.arch
    return f"{name}, {facts.os_name or facts.system}"


def _hardware_lines(facts: DeviceFacts, arch: Architecture) -> list[str]:
    there = [
        name for name in _KERNEL_FEATURES[arch] if not missing_features((name,), facts.cpu_features)
    ]
    lines: list[str] = []
    if facts.cpu:
        lines.append(f"cpu = {_quote(facts.cpu)}  # read")
    if there:
        lines += [
            "# read: those that kernels are chosen by. Each is required of a device; take out what",
            "# others of this kind may lack.",
            f"features = {json.dumps(there)}",
        ]
    if facts.num_cores:
        lines.append(f"num_cores = {facts.num_cores}  # read: those online")
    else:
        lines.append("num_cores = 1  # default: the device does not say")
    if facts.ram_bytes:
        lines += [
            "# read: what the system has of it. Put in that of the smallest model of this kind.",
            f"ram_mib = {max(1, facts.ram_bytes // 2**20)}",
        ]
    else:
        lines.append(f"ram_mib = {_SMALLEST_RAM_MIB}  # default: the device does not say")
    return lines


def _scheme_lines(facts: DeviceFacts, arch: Architecture) -> list[str]:
    is_shared = facts.system == "Darwin"  # a laptop, as those with x86-64
    schemes = list(_SCHEMES[Architecture.X86_64 if is_shared else arch])
    lines = ["# default: what is worth trying, best first; `edgepack pack --device` measures it."]
    runtime = find_prospect(facts)
    if runtime is not None and runtime.name == "tflite-runtime":
        schemes.remove("dynamic_range")
        lines.append(
            f"# dynamic_range is left out: {runtime.label} answers wrongly where it is used in "
            "FULLY_CONNECTED."
        )
    return [*lines, f"schemes = {json.dumps(schemes)}"]


def _thread_lines(facts: DeviceFacts, arch: Architecture) -> list[str]:
    if arch is Architecture.X86_64 or facts.system == "Darwin":
        return [
            "# default: a machine that is shared with its user gives figures that repeat so.",
            "num_threads = 1",
        ]
    return [
        "# default: as many as cores. With unlike cores fewer may be quicker: measure --threads.",
        f"num_threads = {facts.num_cores or 1}",
    ]


def _quote(text: str) -> str:
    """Write a TOML basic string; JSON's escapes are among its own."""
    return json.dumps(text, ensure_ascii=False)
