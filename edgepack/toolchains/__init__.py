"""Isolated, locked environments for the heavy frameworks, and workers run in them."""

from edgepack.toolchains.builds import BuildChoice
from edgepack.toolchains.catalog import Origin, Toolchain
from edgepack.toolchains.provide import (
    ToolchainState,
    ToolchainStatus,
    ensure_toolchain,
    list_toolchains,
    remove_toolchain,
)
from edgepack.toolchains.worker import run_worker

__all__ = [
    "BuildChoice",
    "Origin",
    "Toolchain",
    "ToolchainState",
    "ToolchainStatus",
    "ensure_toolchain",
    "list_toolchains",
    "remove_toolchain",
    "run_worker",
]
