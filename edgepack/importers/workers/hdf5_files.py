"""Look over the HDF5 files of a Keras model before anything reads weights from them.

HDF5 can take a dataset's values from any other file of the machine, through links, external
storage and virtual datasets, and can claim sizes that it does not hold.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)
from flat_source import MOST_SHOWN  # type: ignore[import-not-found]

_WEIGHTS = ".h5"
# Keras stores members as they are. Weights compress little, pruned ones some ten times;
# deflate reaches 1,032 times on zeros.
_MOST_EXPANSION = 100
_HARMLESS_BYTES = 256 * 2**20
_MOST_OBJECTS = 1_000_000


def refuse_outside(path: Path) -> None:
    """Refuse a `.keras` or `.h5` file that reads other files, or swells beyond reason."""
    num_bytes = path.stat().st_size
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                _check_file(path, path.name, file, num_bytes)
            return
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _refuse_bomb(path, path.name, sum(each.file_size for each in members), num_bytes)
            for member in members:
                if member.filename.endswith(_WEIGHTS):
                    with archive.open(member) as weights:
                        _check_file(path, member.filename, weights, num_bytes)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError,
            zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        raise RefusedError(
            "model",
            f"{path.name}: its weights cannot be read: {first_line(error)}",
            "Copy or save the model again and compare its checksum.",
        ) from error


def _check_file(path: Path, title: str, file: BinaryIO | Any, num_bytes: int) -> None:  # noqa: ANN401 - zipfile's reader is no BinaryIO
    import h5py  # noqa: PLC0415 - 0.2 s that a SavedModel need not wait for

    outside: list[str] = []
    with h5py.File(file, "r") as tree:
        # Neither visit follows a link out of the file.
        count = 0

        def look_at_link(name: bytes, info: Any) -> bool | None:  # noqa: ANN401 - h5py is untyped
            nonlocal count
            count += 1
            if info.type == h5py.h5l.TYPE_EXTERNAL:
                outside.append(f"{name.decode(errors='replace')!r} (a link)")
            return True if count > _MOST_OBJECTS else None

        claimed = 0

        def look_at_object(name: str, each: Any) -> bool | None:  # noqa: ANN401 - h5py is untyped
            nonlocal claimed
            if isinstance(each, h5py.Dataset):
                claimed += int(each.nbytes)
                if each.external or each.is_virtual:
                    outside.append(f"{name!r} (a dataset)")
            return None

        if tree.id.links.visit(look_at_link, info=True):
            raise ValueError(f"it has more than {_MOST_OBJECTS} entries")
        tree.visititems(look_at_object)
    if outside:
        raise RefusedError(
            "model",
            f"{path.name}: expected all of {title} to be in the file, but it takes values from "
            f"other files: {', '.join(sorted(outside)[:MOST_SHOWN])}",
            "Save the model again with model.save('model.keras').",
        )
    _refuse_bomb(path, title, claimed, num_bytes)


def _refuse_bomb(path: Path, title: str, claimed_bytes: int, num_bytes: int) -> None:
    if claimed_bytes > max(_HARMLESS_BYTES, _MOST_EXPANSION * num_bytes):
        raise RefusedError(
            "model",
            f"{path.name}: expected at most {_MOST_EXPANSION} times its {num_bytes} bytes in it, "
            f"but {title} claims to hold {claimed_bytes}",
            "Save the model again with model.save('model.keras').",
        )
