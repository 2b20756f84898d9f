"""What each op of a model takes, where the runtime tells it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from edgepack._fields import Fields
from edgepack.measure.launch import MAXIMUM_NS, optional_integer, optional_text

MAXIMUM_OPS: Final = 4096
_MOST_RUNS: Final = 200
_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class OpTime:
    """An op as the runtime ran it.

    Attributes:
        name: as the runtime, or XNNPACK, calls it.
        xnnpack: whether XNNPACK ran it.
        total_ns: of all profiled runs. XNNPACK tells whole microseconds of each run, so its
            quick ops read as less than they took.
        node: its place among the ops of the main graph; None where that is not told.
    """

    name: str
    xnnpack: bool
    total_ns: int
    node: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OpProfile:
    """The ops of one process's runs, which were not those that are timed.

    Attributes:
        num_runs: runs in all.
        total_ns: they took, the profiler's own time included.
        ops: in the order they ran.
        reason: why there are none; None when there are.
    """

    num_runs: int = 0
    total_ns: int = 0
    ops: tuple[OpTime, ...] = ()
    reason: str | None = None


NOT_ASKED: Final = OpProfile(reason="the ops were not asked for")
PYTHON_TELLS_NONE: Final = OpProfile(
    reason="Python's interpreter tells no op's time; the native runner does"
)


def num_profile_runs(run_ns: int) -> int:
    """Give how many runs to profile: about a second's worth."""
    return max(1, min(_MOST_RUNS, round(_SECONDS * 1e9 / max(1, run_ns))))


def to_json(profile: OpProfile) -> dict[str, object]:
    """Give a profile as JSON values; `read_profile` is its inverse."""
    return {**asdict(profile), "ops": [asdict(op) for op in profile.ops]}


def read_profile(fields: Fields) -> OpProfile:
    """Read a profile from what a runner or a file says, noting faults in `fields`."""
    profile = OpProfile(
        num_runs=fields.integer("num_runs", minimum=0),
        total_ns=fields.integer("total_ns", minimum=0, maximum=MAXIMUM_NS),
        ops=_read_ops(fields, fields.tables("ops")),
        reason=optional_text(fields, "reason"),
    )
    if not fields.faults and bool(profile.ops) is (profile.reason is not None):
        fields.fault("ops", "expected ops, or a reason why there are none")
    fields.close()
    return profile


def _read_ops(fields: Fields, tables: Sequence[Fields]) -> tuple[OpTime, ...]:
    if len(tables) > MAXIMUM_OPS:
        fields.fault("ops", f"expected at most {MAXIMUM_OPS}, not {len(tables)}")
        return ()
    ops: list[OpTime] = []
    for table in tables:
        ops.append(
            OpTime(
                name=table.text("name", empty=True),
                xnnpack=table.boolean("xnnpack"),
                total_ns=table.integer("total_ns", minimum=0, maximum=MAXIMUM_NS),
                # Results of older versions have none.
                node=optional_integer(table, "node", maximum=2**31),
            )
        )
        table.close()
    return tuple(ops)
