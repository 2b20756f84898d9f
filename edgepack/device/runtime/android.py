"""Stock Android: LiteRT's own library out of its AAR, and a runner built with the user's NDK.

Neither can be had from here: no wheel holds a library for Android's C library, and the NDK is the
user's to install. What is given is checked before a device is asked anything, and is in use
only once it has started there.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from edgepack.cache import digest_parts
from edgepack.crossbuild import PROGRAM
from edgepack.device.runtime.linkage import Linkage, read_linkage
from edgepack.device.runtime.native import ENGINE, NativeInstallation, install_program
from edgepack.device.store.layout import is_confined
from edgepack.device.store.payload import describe_file
from edgepack.device.store.staging import TransferCallback
from edgepack.device.survey.facts import DeviceFacts
from edgepack.device.wire.transport import Device
from edgepack.errors import ProvisionError

# https://developer.android.com/ndk/guides/abis
ABIS: Final = {
    "aarch64": "arm64-v8a",
    "armv7l": "armeabi-v7a",
    "x86_64": "x86_64",
    "i686": "x86",
}
FUNCTIONS: Final = (
    "Version",
    "ModelCreateFromFileWithErrorReporter",
    "InterpreterOptionsCreate",
    "InterpreterOptionsSetNumThreads",
    "InterpreterOptionsSetErrorReporter",
    "InterpreterOptionsAddDelegate",
    "InterpreterOptionsDelete",
    "InterpreterCreate",
    "InterpreterAllocateTensors",
    "InterpreterInvoke",
    "InterpreterResetVariableTensors",
    "InterpreterGetInputTensorCount",
    "InterpreterGetInputTensor",
    "InterpreterGetOutputTensorCount",
    "InterpreterGetOutputTensor",
    "TensorType",
    "TensorNumDims",
    "TensorDim",
    "TensorByteSize",
    "TensorData",
    "TensorName",
)
"""What the runner asks of a library, each with TfLite before it (`runner/native/tflite.h`)."""

# Every app may load these (https://developer.android.com/ndk/guides/stable_apis).
_SYSTEM_LIBRARIES: Final = frozenset(
    f"lib{name}.so"
    for name in (
        *("EGL", "GLESv1_CM", "GLESv2", "GLESv3", "OpenSLES", "aaudio", "android", "c"),
        *("camera2ndk", "dl", "jnigraphics", "log", "m", "mediandk", "nativewindow"),
        *("neuralnetworks", "stdc++", "sync", "vulkan", "z"),
    )
)
_MAX_ENTRIES: Final = 4096
_MAX_LIBRARY_BYTES: Final = 256 * 2**20
_MAX_PROGRAM_BYTES: Final = 64 * 2**20
# zipfile raises the last two for methods it does not know, and for encrypted entries.
_UNREADABLE: Final = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(NotImplementedError, RuntimeError),
)
_BUILD: Final = (
    "Build it with the NDK from edgepack/runner/native/runner.c; docs/devices.md (Android) has "
    "the command."
)
_OTHER_AAR: Final = (
    "Give one with the TensorFlow Lite C API, such as org.tensorflow:tensorflow-lite or "
    "com.google.ai.edge.litert:litert 1.x from Maven."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AndroidRuntime:
    """A library and a runner for stock Android, as the user gave them.

    Attributes:
        label: what they are called in messages: the AAR's file name.
        arch: of both.
        library_name: file name of the library.
        library: its content.
        program: the runner's content.
    """

    label: str
    arch: str
    library_name: str
    library: bytes
    program: bytes

    @property
    def digest(self) -> str:
        """Hex digest of what is installed."""
        return digest_parts(
            "android-runtime",
            library=hashlib.sha256(self.library).hexdigest(),
            program=hashlib.sha256(self.program).hexdigest(),
        )

    @property
    def folder_name(self) -> str:
        """Name of its folder on a device."""
        return f"{ENGINE}-android-{self.digest[:12]}"


def read_android_runtime(aar: Path, program: Path) -> AndroidRuntime:
    """Read an AAR and a runner that was built for it.

    Raises:
        ProvisionError: the one is no AAR with a library the runner can use, or the other no
            program for Android.
    """
    content = _read_program(program)
    arch = _check_program(program, content)
    name, library = _find_library(aar, ABIS[arch])
    return AndroidRuntime(
        label=aar.name, arch=arch, library_name=name, library=library, program=content
    )


def check_android(facts: DeviceFacts, runtime: AndroidRuntime) -> None:
    """Refuse a device that the runtime is not for.

    Raises:
        ProvisionError: it is no stock Android, or of another architecture.
    """
    where = facts.os_name or facts.system
    if facts.libc != "bionic":
        raise ProvisionError(
            f"{runtime.label} is for stock Android, but {where} has {facts.libc or 'another libc'}",
            remedy="Leave --runtime out; the runtime that suits is sent by itself.",
        )
    if facts.arch != runtime.arch:
        raise ProvisionError(
            f"the runner given is for {runtime.arch}, but {where} is {facts.arch}",
            remedy=_BUILD,
        )


def install_android(
    device: Device,
    runtime: AndroidRuntime,
    *,
    root: str,
    on_progress: Callable[[str], None],
    on_transfer: TransferCallback | None = None,
) -> NativeInstallation:
    """Make sure that the user's library and runner are on the device and start there.

    Raises:
        ProvisionError: they do not start there.
        DeployError: no room or permission.
        ConnectError: the link was lost; nothing half-installed is in use.
    """
    return install_program(
        device,
        root=root,
        folder_name=runtime.folder_name,
        library_name=runtime.library_name,
        label=f"the runtime of {runtime.label}",
        version=None,
        load_files=lambda: (
            describe_file(runtime.library_name, runtime.library),
            describe_file(PROGRAM, runtime.program),
        ),
        on_progress=on_progress,
        on_transfer=on_transfer,
    )


def _read_program(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_PROGRAM_BYTES + 1)
    except OSError as error:
        raise ProvisionError(f"{path}: {error.strerror}", remedy=_BUILD) from error
    if len(content) > _MAX_PROGRAM_BYTES:
        raise ProvisionError(
            f"{path}: expected a small program, found more than {_MAX_PROGRAM_BYTES} bytes",
            remedy=_BUILD,
        )
    return content


def _check_program(path: Path, content: bytes) -> str:
    """Give the architecture of a program for Android."""
    try:
        linkage = read_linkage(content)
    except ValueError as error:
        raise ProvisionError(
            f"{path}: expected a program for Android: {error}", remedy=_BUILD
        ) from error
    if linkage.interpreter is None or not linkage.is_bionic or linkage.arch not in ABIS:
        raise ProvisionError(
            f"{path}: expected a program for Android, which asks for /system/bin/linker64; this "
            f"one is for {linkage.arch} and asks for {linkage.interpreter or 'no loader'}",
            remedy=_BUILD,
        )
    return linkage.arch


def _find_library(aar: Path, abi: str) -> tuple[str, bytes]:
    """Give the name and content of the library that has all functions the runner asks for."""
    candidates = _read_libraries(aar, abi)
    faults: list[str] = []
    for name, content in candidates.items():
        try:
            fault = _judge_library(read_linkage(content), abi)
        except ValueError as error:
            fault = str(error)
        if not fault:
            return name, content
        faults.append(f"{name}: {fault}")
    text = "; ".join(faults) or f"it holds no jni/{abi}/*.so"
    raise ProvisionError(f"{aar}: no library the runner can use: {text}", remedy=_OTHER_AAR)


def _judge_library(linkage: Linkage, abi: str) -> str:
    """Say why the runner cannot use a library; nothing when it can."""
    if ABIS.get(linkage.arch) != abi:
        return f"it is for {linkage.arch}"
    if not linkage.is_bionic:
        return "it is not made for Android's C library"
    missing = [f"TfLite{name}" for name in FUNCTIONS if f"TfLite{name}" not in linkage.exported]
    if missing:
        more = f" and {len(missing) - 1} more functions" if len(missing) > 1 else ""
        return f"it has no {missing[0]}{more}"
    foreign = sorted(set(linkage.needed) - _SYSTEM_LIBRARIES)
    return f"it needs {', '.join(foreign)}, which Android does not have" if foreign else ""


def _read_libraries(aar: Path, abi: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(aar) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries if not entry.is_dir()]
            if len(entries) > _MAX_ENTRIES or not all(map(is_confined, names)):
                raise ProvisionError(
                    f"{aar}: {len(entries)} entries, or paths that leave the archive",
                    remedy=_OTHER_AAR,
                )
            wanted = [
                entry
                for entry in entries
                if PurePosixPath(entry.filename).parent == PurePosixPath("jni", abi)
                and entry.filename.endswith(".so")
            ]
            size = sum(entry.file_size for entry in wanted)
            if size > _MAX_LIBRARY_BYTES or len(set(names)) != len(names):
                raise ProvisionError(
                    f"{aar}: libraries of {size} bytes, or a name twice", remedy=_OTHER_AAR
                )
            return {PurePosixPath(entry.filename).name: archive.read(entry) for entry in wanted}
    except _UNREADABLE as error:
        raise ProvisionError(f"{aar}: not an AAR: {error}", remedy=_OTHER_AAR) from error
