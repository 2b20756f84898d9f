"""Arrays and labels from files: `.npz`, `.npy` and lists of class ids; nothing is unpickled."""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack._fields import join_faults
from edgepack.errors import DataError

MAXIMUM_BYTES: Final = 4 * 2**30
_MAXIMUM_ENTRIES: Final = 1000
_MAXIMUM_LABEL_BYTES: Final = 64 * 2**20
_SUFFIX: Final = ".npy"
# What zipfile lets through of its decompressors and of nonsense in headers (Python 3.11).
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, ValueError)


def read_npz(path: Path) -> Mapping[str, NDArray[Any]]:
    """Read the arrays of a `.npz` by name.

    Sizes are checked against the archive's directory before anything is unpacked.

    Raises:
        DataError: unreadable, not a `.npz`, too large when unpacked, or with object arrays;
            all faulty arrays are listed.
    """
    arrays: dict[str, NDArray[Any]] = {}
    faults: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            _check_bounds(path, archive)
            for entry in archive.infolist():
                name = entry.filename.removesuffix(_SUFFIX)
                if name == entry.filename:
                    faults.append(f"entry {entry.filename!r}: expected an array (.npy)")
                    continue
                with archive.open(entry) as file:
                    _read_into(arrays, name, file, entry.file_size, faults)
    except _DAMAGED as error:
        raise DataError(
            f"{path}: expected an .npz as numpy.savez writes it, but got another format or a "
            f"damaged file: {error}",
            remedy="Write it again with numpy.savez(path, input_name=array).",
        ) from error
    # RuntimeError: an encrypted entry; NotImplementedError: an unknown compression.
    except (OSError, EOFError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    if faults:
        raise DataError(
            join_faults(str(path), faults),
            remedy="Write plain numeric arrays with numpy.savez(path, input_name=array).",
        )
    return arrays


def read_npy(path: Path) -> NDArray[Any]:
    """Read one array.

    Raises:
        DataError: unreadable, not a `.npy`, too large, or with objects.
    """
    arrays: dict[str, NDArray[Any]] = {}
    faults: list[str] = []
    try:
        size = path.stat().st_size
        if size > MAXIMUM_BYTES:
            raise _too_large(path, size)
        with path.open("rb") as file:
            _read_into(arrays, path.name, file, size, faults)
    except OSError as error:
        raise _unreadable(path, error) from error
    if faults:
        raise DataError(
            join_faults(str(path), faults),
            remedy="Write a plain numeric array with numpy.save(path, array).",
        )
    return arrays[path.name]


def read_labels(path: Path) -> NDArray[Any]:
    """Read class ids: a `.npy`, or a text with one whole number a line.

    Raises:
        DataError: unreadable, or a line that is not a whole number.
    """
    if path.suffix == _SUFFIX:
        return read_npy(path)
    try:
        if path.stat().st_size > _MAXIMUM_LABEL_BYTES:
            raise _too_large(path, path.stat().st_size)
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    faults: list[str] = []
    ids: list[int] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text.isascii() and text.isdigit() and len(text) < 10:  # noqa: PLR2004 - fits an int32
            ids.append(int(text))
        elif text:
            faults.append(f"line {number}: expected a class id such as 7, not {text[:40]!r}")
    if faults:
        shown = faults[:5] + ([f"and {len(faults) - 5} more lines"] if len(faults) > 5 else [])  # noqa: PLR2004 - one screen
        raise DataError(
            join_faults(f"labels {path}", shown),
            remedy="Write one class id a line, in the order of the samples.",
        )
    return np.array(ids, dtype=np.int64)


def _check_bounds(path: Path, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    if len(entries) > _MAXIMUM_ENTRIES:
        raise DataError(
            f"{path}: expected at most {_MAXIMUM_ENTRIES} arrays, but got {len(entries)}",
            remedy="Stack the samples of an input into one array.",
        )
    total = sum(entry.file_size for entry in entries)
    if total > MAXIMUM_BYTES:
        raise _too_large(path, total)


def _read_into(
    arrays: dict[str, NDArray[Any]], name: str, file: IO[bytes], size: int, faults: list[str]
) -> None:
    try:
        shape, dtype = _read_header(file)
        if dtype.hasobject:
            faults.append(f"array {name!r}: expected numbers, but got Python objects")
            return
        # The header is what numpy allocates by, so it must agree with what is there.
        num_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if num_bytes > size:
            faults.append(
                f"array {name!r}: its header speaks of {num_bytes} bytes, but there are {size}"
            )
            return
        file.seek(0)
        arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, zipfile.BadZipFile) as error:
        faults.append(f"array {name!r}: expected the format of numpy.save: {error}")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        # 3.0 exists for field names in Unicode, which arrays of numbers do not have.
        raise ValueError(f"format version {version} is not for plain numbers")
    return shape, dtype


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return DataError(f"{path}: cannot be read: {reason}", remedy="Check the path and the file.")


def _too_large(path: Path, num_bytes: int) -> DataError:
    return DataError(
        f"{path}: expected at most {MAXIMUM_BYTES // 2**30} GiB of data, but it holds "
        f"{num_bytes / 2**30:.1f} GiB",
        remedy="Give fewer samples; some hundred are enough to calibrate.",
    )
