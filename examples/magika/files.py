r"""Beginnings and ends of this machine's own files for Magika, for `--data files:contents`.

    cd examples/magika
    edgepack pack "$(../../scripts/fetch-models magika)" --dim batch=1 \
        --target laptop-x86-64 --data files:contents

Magika 1.0's standard_v3_3 reads 1,024 bytes from each end of a file, without white space at the
ends, and pads with 256. The files are those of Python's own library and of the packages beside
it, so they differ a little between machines.
"""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

END_BYTES = 1024
PADDING = 256
NUM_EACH = 12
SUFFIXES = (
    *(".py", ".pyc", ".so", ".txt", ".json", ".h", ".png", ".html", ".xml", ".csv"),
    *(".md", ".toml", ".css", ".js"),
)


def contents() -> Iterator[dict[str, NDArray[np.int32]]]:
    """Yield samples `{"bytes": 2048}` of up to 12 files of each kind, the kinds in turn."""
    folders = {Path(sysconfig.get_path(key)) for key in ("stdlib", "purelib", "platlib")}
    kinds = [_find(folders, suffix) for suffix in SUFFIXES]
    for turn in range(NUM_EACH):
        for paths in kinds:
            if turn < len(paths):
                yield {"bytes": _read(paths[turn])}


def _find(folders: set[Path], suffix: str) -> list[Path]:
    """Give files of a kind that are long enough to tell, spread over all there are."""
    found = sorted({path for folder in folders for path in folder.rglob(f"*{suffix}")})
    found = [path for path in found if path.is_file() and path.stat().st_size > END_BYTES]
    return found[:: max(1, len(found) // NUM_EACH)][:NUM_EACH]


def _read(path: Path) -> NDArray[np.int32]:
    data = path.read_bytes()
    whole = np.full(2 * END_BYTES, PADDING, np.int32)
    first = np.frombuffer(data.lstrip()[:END_BYTES], np.uint8)
    last = np.frombuffer(data.rstrip()[-END_BYTES:], np.uint8)
    whole[: first.size] = first
    whole[2 * END_BYTES - last.size :] = last
    return whole
