"""The native runner compiled for a device's architecture, once a source and compiler.

The compiler is Zig's C compiler, which holds the C libraries of all targets: one file from the
package index builds for each of them on every machine (`ziglang`, in a toolchain of its own).
"""

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import edgepack.runner
from edgepack.cache import Cache, digest_parts
from edgepack.errors import ToolchainError
from edgepack.scratch import open_scratch
from edgepack.toolchains.catalog import find_spec
from edgepack.toolchains.environment import ensure_environment

SOURCES: Final = Path(edgepack.runner.__path__[0]) / "native"
PROGRAM: Final = "runner"
_MAIN: Final = "runner.c"
_TOOLCHAIN: Final = "zig"
# What the device's C library must have at least. The runtime library asks for more; this low,
# the program itself always starts and can say so.
TARGETS: Final[Mapping[str, str]] = {
    "x86_64": "x86_64-linux-gnu.2.17",
    "aarch64": "aarch64-linux-gnu.2.17",
    "armv7l": "arm-linux-gnueabihf.2.17",
}
_FLAGS: Final = (
    *("-std=c11", "-O2", "-s", "-Wall", "-Wextra", "-Werror"),
    "-D_FILE_OFFSET_BITS=64",  # a model's samples may be larger than 2 GiB on 32-bit Arm too
)
# The first build of a target also builds what stands around its C library: 7 s here.
_SECONDS: Final = 600.0
_TAIL_LINES: Final = 12


def runner_key(arch: str) -> str:
    """Give the hex key of the runner for an architecture: of its source, flags and compiler.

    Raises:
        ToolchainError: no program can be built for the architecture.
    """
    if arch not in TARGETS:
        raise ToolchainError(
            f"expected one of the architectures {', '.join(TARGETS)} for the native runner, "
            f"not {arch}",
            remedy="Give the device a Python that a runtime exists for.",
        )
    return digest_parts(
        "native-runner",
        source=_digest_sources(),
        flags=" ".join(_FLAGS),
        target=TARGETS[arch],
        compiler=find_spec(_TOOLCHAIN).digest(),
    )


def build_runner(arch: str, *, cache: Cache, on_progress: Callable[[str], None]) -> bytes:
    """Give the native runner for an architecture; built once, then kept by content.

    Args:
        arch: of the device, as its facts name it.
        cache: where programs are kept.
        on_progress: called with each step in words.

    Raises:
        ToolchainError: no program can be built for the architecture, the compiler cannot be
            installed, or it failed.
    """
    key = runner_key(arch)
    folder = cache.load(key)
    if folder is None:
        # Not `ensure_toolchain`: an environment the user names for converters has no compiler.
        environment = ensure_environment(find_spec(_TOOLCHAIN), on_progress=on_progress)
        on_progress(f"compiling the native runner for {arch}")
        program = _compile(environment.python, TARGETS[arch])
        folder = cache.store(key, {PROGRAM: program})
    return (folder / PROGRAM).read_bytes()


def _digest_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.[ch]")):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _compile(python: Path, target: str) -> bytes:
    with open_scratch("native") as folder:
        output = folder / PROGRAM
        command = [str(python), "-I", "-m", "ziglang", "cc", *_FLAGS, "-target", target]
        command += ["-o", str(output), str(SOURCES / _MAIN), "-ldl"]
        # Neither the user's flags nor their folders shall change what is kept by content.
        variables = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "ZIG_GLOBAL_CACHE_DIR": str(folder / "global"),
            "ZIG_LOCAL_CACHE_DIR": str(folder / "local"),
        }
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=_SECONDS)
            except BaseException as error:  # Ctrl-C too: the compiler's children must not stay
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise _failed(target, f"no end within {_SECONDS:.0f} s") from error
                raise
        if process.returncode != 0 or not output.is_file():
            lines = said.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
            text = f"exit code {process.returncode}\n" + "\n".join(f"  {line}" for line in lines)
            raise _failed(target, text)
        return output.read_bytes()


def _failed(target: str, reason: str) -> ToolchainError:
    return ToolchainError(
        f"the native runner could not be compiled for {target}: {reason}",
        remedy="Run `edgepack toolchain remove zig` and try again; the runner itself is compiled "
        "as it came with EdgePack.",
    )
