"""Run foreign code over foreign files: bounded, confined to a folder, and gone afterwards."""

from edgepack.sandbox.bounds import (
    Bounds,
    Limit,
    Usage,
    default_memory_bytes,
    machine_memory_bytes,
)
from edgepack.sandbox.running import Ended, run_bounded

__all__ = [
    "Bounds",
    "Ended",
    "Limit",
    "Usage",
    "default_memory_bytes",
    "machine_memory_bytes",
    "run_bounded",
]
