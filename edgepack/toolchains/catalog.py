"""What toolchains there are: their locks, their Pythons and what may serve in their stead."""

import hashlib
import os
import platform
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from edgepack._fields import nearest
from edgepack.errors import ToolchainError, UsageError

LOCKS: Final = Path(__file__).with_name("locks")
SUPPORTED_PLATFORMS: Final = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
# Part of every lock's digest: raise it when environments are laid out otherwise.
_LAYOUT: Final = "1"


class Origin(StrEnum):
    """Where a toolchain's Python comes from."""

    ISOLATED = "isolated"
    CURRENT = "current"
    GIVEN = "given"


@dataclass(frozen=True, kw_only=True, slots=True)
class Toolchain:
    """An environment that is ready to run workers.

    Attributes:
        name: of its specification.
        python: the interpreter to run workers with.
        versions: name and version of each installed distribution that decides results.
        origin: made by EdgePack, the environment EdgePack runs in, or the user's own.
    """

    name: str
    python: Path
    versions: tuple[tuple[str, str], ...]
    origin: Origin


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolchainSpec:
    """What a toolchain needs.

    Attributes:
        name: also the stem of its lock file.
        purpose: what it is for, in a few words.
        lock: its lock file; None when only another environment can serve.
        pythons: (lowest, highest) Python version the lock's files exist for.
        platforms: (`sys.platform`, machine) the lock's files exist for.
        modules: what an environment must be able to import.
        serving: requirements the current environment must satisfy to serve; empty if it
            never does. `a | b` is satisfied by either.
        reported: distributions whose versions decide results.
        pip_args: more options for pip.
        unhashed: requirements that belong to the lock and stand outside it, since builds of
            one version differ in file; what they require besides is in the lock.
        plain_index: in words, where the index is whose builds of them require nothing more.
        installed_mib: free disk space an installation needs, downloads included.
    """

    name: str
    purpose: str
    lock: Path | None
    pythons: tuple[tuple[int, int], tuple[int, int]] = ((3, 11), (3, 13))
    platforms: tuple[tuple[str, str], ...] = SUPPORTED_PLATFORMS
    modules: tuple[str, ...]
    serving: tuple[str, ...] = ()
    reported: tuple[str, ...]
    pip_args: tuple[str, ...] = ()
    unhashed: tuple[str, ...] = ()
    plain_index: str = ""
    installed_mib: int = 0

    @property
    def python_range(self) -> str:
        """The supported Python versions in words."""
        (low_major, low), (high_major, high) = self.pythons
        return f"Python {low_major}.{low} to {high_major}.{high}"

    def supports(self, version: tuple[int, int]) -> bool:
        """Tell whether a Python's (major, minor) is in the range."""
        return self.pythons[0] <= version <= self.pythons[1]

    def read_lock(self) -> bytes:
        """Give the lock file's contents.

        Raises:
            ToolchainError: there is none, or it cannot be read.
        """
        if self.lock is None:
            raise ToolchainError(
                f"the {self.name} toolchain is not installed in this environment, and it has "
                "no isolated one",
                remedy=f"Run `pip install 'edgepack[{self.name}]'`, or name an environment "
                "that has it with --toolchain-python.",
            )
        try:
            return self.lock.read_bytes()
        except OSError as error:
            raise ToolchainError(
                f"{self.lock}: the lock cannot be read: {error.strerror or error}",
                remedy="Install EdgePack again.",
            ) from error

    def digest(self) -> str:
        """Give 12 hex digits that change whenever an installation would."""
        texts = (_LAYOUT, *self.pip_args, *self.unhashed)
        parts = (*(text.encode() for text in texts), self.read_lock())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


SPECS: Final = (
    ToolchainSpec(
        name="tensorflow",
        purpose="Keras and SavedModel import",
        lock=LOCKS / "tensorflow.txt",
        modules=("tensorflow",),
        serving=("tensorflow>=2.21,<2.22 | tensorflow-cpu>=2.21,<2.22", "tf-keras>=2.21,<2.22"),
        reported=(
            "tensorflow", "tensorflow-cpu", "keras", "tf-keras",
            "tensorflow-model-optimization", "numpy",
        ),
        installed_mib=2000,
    ),
    ToolchainSpec(
        name="onnx",
        purpose="ONNX import",
        lock=LOCKS / "onnx.txt",
        modules=("onnx", "onnx2tf", "onnxruntime", "onnxsim"),
        reported=("onnx", "onnx2tf", "onnxruntime", "onnxsim", "ai-edge-litert", "numpy"),
        # onnx2tf 2.6.9 declares Python 3.12 and runs on 3.11.
        pip_args=("--ignore-requires-python",),
        installed_mib=1200,
    ),
    ToolchainSpec(
        name="onnx2tf-tensorflow",
        purpose="ONNX import where onnx2tf without TensorFlow fails: onnx2tf through Keras",
        lock=LOCKS / "onnx2tf-tensorflow.txt",
        modules=("onnx2tf", "tensorflow", "tf_keras"),
        reported=("onnx", "onnx2tf", "tensorflow", "tensorflow-cpu", "keras", "tf-keras", "numpy"),
        pip_args=("--ignore-requires-python",),
        installed_mib=2600,
    ),
    ToolchainSpec(
        name="onnx-tf",
        purpose="ONNX import where onnx2tf fails: onnx-tf, for old operations and loops",
        lock=LOCKS / "onnx-tf.txt",
        # Of tensorflow-addons 0.23.0, its last, there are no other files.
        pythons=((3, 11), (3, 11)),
        platforms=(("linux", "x86_64"), ("darwin", "arm64")),
        modules=("onnx_tf", "tensorflow", "tensorflow_addons"),
        reported=("onnx", "onnx-tf", "tensorflow", "tensorflow-cpu", "tensorflow-addons", "numpy"),
        installed_mib=2000,
    ),
    ToolchainSpec(
        name="pytorch",
        purpose="PyTorch import",
        lock=LOCKS / "pytorch.txt",
        # litert-converter 0.5.0 has no file for Linux aarch64.
        platforms=(("linux", "x86_64"), ("darwin", "arm64")),
        modules=("torch", "litert_torch"),
        serving=("torch==2.13.0", "litert-torch>=0.10,<0.11"),
        reported=("torch", "litert-torch", "litert-converter", "ai-edge-litert", "jax", "numpy"),
        # PyTorch's CPU and CUDA builds bear one version and differ in file.
        unhashed=("torch==2.13.0",),
        plain_index="the CPU index that pytorch.org/get-started/locally names",
        installed_mib=3000,
    ),
    ToolchainSpec(
        name="zig",
        purpose="the native runner, compiled for a device's architecture",
        lock=LOCKS / "zig.txt",
        modules=("ziglang",),
        reported=("ziglang",),
        installed_mib=600,
    ),
)  # fmt: skip


def find_spec(name: str) -> ToolchainSpec:
    """Give a toolchain's specification by its name.

    Raises:
        UsageError: there is no such toolchain.
    """
    for spec in SPECS:
        if spec.name == name:
            return spec
    names = [spec.name for spec in SPECS]
    raise UsageError(
        f"unknown toolchain {name!r}{nearest(name, names)}",
        remedy="Run `edgepack toolchain list` to see them all.",
    )


def check_platform(spec: ToolchainSpec) -> str:
    """Give this machine's platform as `linux-x86_64`.

    Raises:
        ToolchainError: the toolchain's lock has no files for it.
    """
    machine = platform.machine()
    if (sys.platform, machine) not in spec.platforms or os.name != "posix":
        known = ", ".join("-".join(pair) for pair in spec.platforms)
        raise ToolchainError(
            f"expected one of the platforms {known} for an isolated {spec.name} toolchain, not "
            f"{sys.platform}-{machine}",
            remedy="Run EdgePack on one of them, or name an environment that has the "
            "framework with --toolchain-python.",
        )
    return f"{sys.platform}-{machine}"
