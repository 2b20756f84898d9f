"""Which ops, at which versions, a runtime loads, and which it is known to get wrong; pure.

`op_versions.toml` holds what the runtimes themselves answered; `scripts/lock-op-versions` writes
it. A version is what a file claims, and no proof: ai-edge-quantizer 0.10 writes version 1 of an
op whatever the op needs, and tflite-runtime then computes something else without a word. Hence
the second list, of what was found by running; the golden check on the device has the last word.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resource_files
from typing import Final

from edgepack._fields import Fields
from edgepack.errors import ProvisionError
from edgepack.workload import OpUse


@dataclass(frozen=True, kw_only=True, slots=True)
class OpSupport:
    """What ops a runtime has.

    Attributes:
        project: of the runtime, such as `tflite-runtime`.
        version: of it.
        builtin: name → oldest and newest version it loads.
        custom: names of custom ops it comes with.
    """

    project: str
    version: str
    builtin: Mapping[str, tuple[int, int]]
    custom: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpFault:
    """An op of a model that a runtime does not load, or gets wrong.

    Attributes:
        expected: what the model asks for.
        found: what the runtime has or does.
        fix: what can be done.
    """

    expected: str
    found: str
    fix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _KnownFault:
    op: str
    is_per_channel: bool | None  # None: with one scale and with several
    expected: str
    found: str
    fix: str


# Run here on x86-64 with models of one layer that ai-edge-quantizer 0.10 made. tflite-runtime 2.11
# and 2.14: the first answers -0.1 dB beside the float model where LiteRT 2.3 answers 46 dB and the
# library 2.17.1 44 dB (one scale for the tensor: 42 dB in all); the second fails to load in both.
# The library 2.17.1 loads the second with several scales. CONV_2D and DEPTHWISE_CONV_2D are right
# everywhere, with one scale and with several.
_KNOWN_FAULTS: Final = {
    "tflite-runtime": (
        _KnownFault(
            op="FULLY_CONNECTED",
            is_per_channel=True,
            expected="FULLY_CONNECTED with int8 weights of a scale a channel and float inputs "
            "computed right",
            found="it answers nonsense (-0.1 dB where other runtimes give 46 dB), without a word",
            fix="Pack with `--recipe int8` or `weight_only_int8`, or a recipe file with "
            '`granularity = "tensorwise"`, or give the device a 64-bit system with Python 3.10 or '
            "newer.",
        ),
        _KnownFault(
            op="TRANSPOSE_CONV",
            is_per_channel=None,
            expected="TRANSPOSE_CONV with int8 weights and float inputs loaded",
            found="it refuses it: weights->type != input->type (INT8 != FLOAT32)",
            fix="Pack with `--recipe int8`, `weight_only_int8` or `float16`, or give the device a "
            "64-bit system with Python 3.10 or newer.",
        ),
    ),
    "tensorflow-lite-c": (
        _KnownFault(
            op="TRANSPOSE_CONV",
            is_per_channel=False,
            expected="TRANSPOSE_CONV with int8 weights of one scale and float inputs loaded",
            found="it refuses it: scale->size != weights->dims (1 != the channels)",
            fix='Pack with `granularity = "channelwise"`, which is the default, or with '
            "`--recipe int8`.",
        ),
    ),
}


@cache
def load_op_support() -> tuple[OpSupport, ...]:
    """Read the table that comes with EdgePack."""
    text = resource_files("edgepack.device.runtime").joinpath("op_versions.toml").read_text("utf-8")
    fields = Fields(tomllib.loads(text))
    found: list[OpSupport] = []
    for table in fields.tables("runtime"):
        builtin = table.table("builtin", required=True)
        ranges = {name: builtin.integers(name, minimum=1) for name in builtin.keys()}  # noqa: SIM118 - no mapping
        found.append(
            OpSupport(
                project=table.text("project"),
                version=table.text("version"),
                builtin={name: (pair[0], pair[-1]) for name, pair in ranges.items() if pair},
                custom=frozenset(table.texts("custom")),
            )
        )
    if fields.faults:
        raise ProvisionError(
            f"op_versions.toml: {fields.faults[0]}", remedy="Install EdgePack again."
        )
    return tuple(found)


def find_op_support(project: str, version: str) -> OpSupport | None:
    """Give what a runtime loads; None for one that was never asked."""
    for support in load_op_support():
        if (support.project, support.version) == (project, version):
            return support
    return None


def judge_ops(uses: Sequence[OpUse], support: OpSupport) -> tuple[OpFault, ...]:
    """Find the ops of a model that a runtime does not load or is known to get wrong."""
    label = f"{support.project} {support.version}"
    faults: list[OpFault] = []
    for use in uses:
        if use.is_custom:
            if use.name not in support.custom:
                faults.append(_custom_fault(use, label))
            continue
        oldest, newest = support.builtin.get(use.name, (0, 0))
        if not oldest <= use.version <= newest:
            faults.append(_version_fault(use, label, oldest=oldest, newest=newest))
            continue
        faults += [
            OpFault(expected=known.expected, found=f"{label}: {known.found}", fix=known.fix)
            for known in _KNOWN_FAULTS.get(support.project, ())
            if use.is_hybrid
            and use.name == known.op
            and known.is_per_channel in {None, use.is_per_channel}
        ]
    return tuple(dict.fromkeys(faults))


def _custom_fault(use: OpUse, label: str) -> OpFault:
    if use.name.startswith("Flex"):
        return OpFault(
            expected=f"the op {use.name} of TensorFlow itself",
            found=f"{label} has no TensorFlow ops",
            fix="Convert the model with built-in ops alone; `edgepack pack` of the source does.",
        )
    return OpFault(
        expected=f"the custom op {use.name}",
        found=f"{label} does not come with it",
        fix="Take that op out of the model, and do its work in your program.",
    )


def _version_fault(use: OpUse, label: str, *, oldest: int, newest: int) -> OpFault:
    has = f"{label} loads up to version {newest}" if newest else f"{label} does not have it"
    if newest and use.version < oldest:
        has = f"{label} loads version {oldest} and newer"
    return OpFault(
        expected=f"the op {use.name} at version {use.version}",
        found=has,
        fix="Pack from the source model instead of a .tflite made by a newer converter, try "
        "another recipe, or give the device a newer runtime (64-bit system, Python 3.10 or newer).",
    )
