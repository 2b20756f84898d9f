"""What `bench --model-explorer` writes: each op's time as node data for that viewer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.commands.console import note
from edgepack.commands.output import write_text
from edgepack.errors import MeasureError, UsageError

if TYPE_CHECKING:
    from edgepack.bundle.archive import Bundle
    from edgepack.measure.record import Measurement
    from edgepack.model import Model


def check_op_times(
    path: Path | None, devices: Sequence[str], against: Path | None, given: Mapping[str, Any]
) -> None:
    """Refuse to write ops' times where there is no one model, device and runner that tells them.

    Raises:
        UsageError: naming what stands against it.
    """
    if path is None:
        return
    if len(devices) > 1 or devices[0].startswith("@") or against is not None:
        raise UsageError(
            "--model-explorer shows the ops of one model on one device",
            remedy="Give one device and no --against, or leave it out.",
        )
    if given["runner"] == "python":
        raise UsageError(
            "--model-explorer: Python's interpreter tells no op's time",
            remedy="Give --runner native.",
        )


def write_op_times(
    path: Path | None, content: "Bundle | Model", measured: "Sequence[Measurement]"
) -> None:
    """Write the ops' times as node data for Model Explorer, where that was asked for.

    Raises:
        MeasureError: the runner told none, or none of them is found in the graph.
        OutputError: the file cannot be written.
    """
    from edgepack.bundle.archive import Bundle
    from edgepack.bundle.manifest import MODEL_PATH
    from edgepack.workflow.op_times import join_ops, make_node_data

    if path is None or not measured:
        return
    profile = measured[0].profile
    if profile.reason is not None:
        raise MeasureError(
            f"{path}: not written: {profile.reason}", remedy="Measure with --runner native."
        )
    data = content.read(MODEL_PATH) if isinstance(content, Bundle) else content.data
    joined = join_ops(data, profile)
    if not joined.times:
        raise MeasureError(
            f"{path}: not written: none of the {joined.num_ops} ops that ran is found in the graph",
            remedy="The result and the report have their times, in the order they ran.",
        )
    write_text(path, json.dumps(make_node_data(joined), indent=2))
    ops = f"{joined.num_joined} of {joined.num_ops} ops"
    note(f"wrote {path}: {ops}, {joined.share:.0%} of their time")
