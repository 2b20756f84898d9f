"""What ran a model: the runtime, in whose runner, and with which kernels."""

from dataclasses import dataclass
from typing import Final

from edgepack._fields import Fields
from edgepack.measure.launch import optional_text

_RUNNERS: Final = ("python", "native")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """The runtime that ran the model, as it said itself.

    Attributes:
        name: `ai-edge-litert`, `tflite-runtime` or `tensorflow-lite-c`.
        version: of the runtime; None when it does not say.
        num_threads: threads it was given.
        xnnpack: whether the XNNPACK delegate took any part of the graph; None when unknown.
        python: version of the interpreter it ran in; None in the native runner.
        sha256: digest of what was installed for it; None when it was there already.
        runner: `python` or `native`, the program that timed it.
        has_xnnpack: whether the runtime holds XNNPACK's kernels at all; None when unknown. What
            one without them measured is never set beside what one with them did.
    """

    name: str
    version: str | None
    num_threads: int
    xnnpack: bool | None
    python: str | None
    sha256: str | None = None
    runner: str = "python"
    has_xnnpack: bool | None = None


def read_engine(fields: Fields, *, threads_key: str = "num_threads") -> EngineFacts:
    """Read an engine from what a runner or a file says, noting faults in `fields`.

    Files of older versions name no runner; theirs was Python's.
    """
    runner = fields.text("runner", "python")
    if runner not in _RUNNERS:
        fields.fault("runner", f"expected {' or '.join(_RUNNERS)}, not {runner[:40]!r}")
    engine = EngineFacts(
        name=fields.text("name"),
        version=optional_text(fields, "version"),
        num_threads=fields.integer(threads_key, minimum=1),
        xnnpack=None if fields.raw("xnnpack") is None else fields.boolean("xnnpack"),
        python=optional_text(fields, "python"),
        sha256=optional_text(fields, "sha256"),
        runner=runner,
        has_xnnpack=None if fields.raw("has_xnnpack") is None else fields.boolean("has_xnnpack"),
    )
    if runner == "python" and engine.python is None:
        fields.fault("python", "missing; expected a text")
    fields.close()
    return engine
