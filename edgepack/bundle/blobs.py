"""A model's file in stretches that stay the same in the next release.

A retrained head leaves the other layers' weights as they were, though not always where they
were. So every large tensor is a blob of its own, from its first byte to its last, and what
lies between (tables, names, quantization parameters, small tensors) is cut where its content
says so, not where its place does: after an insertion the cuts fall on the same bytes again.
https://www.usenix.org/system/files/conference/atc16/atc16-paper-xia.pdf (Gear, FastCDC)
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from edgepack.bundle.manifest import MAXIMUM_BLOBS, Blob
from edgepack.flatbuffer import find_buffers

SMALLEST_CUT_BYTES: Final = 64 * 1024
"""A smaller model is sent whole sooner than its parts are looked up."""

_LEAST_TENSOR_BYTES: Final = 4096
# A 32-bit Gear hash knows of the last 32 bytes.
_WINDOW_DOUBLINGS: Final = 5
_GEAR: Final = np.array(
    [int.from_bytes(hashlib.sha256(bytes([byte])).digest()[:4], "big") for byte in range(256)],
    dtype=np.uint32,
)


def cut_blobs(data: bytes) -> tuple[Blob, ...]:
    """Cut a model's file into at most `MAXIMUM_BLOBS` blobs; the same file gives the same.

    Tensors of 4 KiB and more stand alone; where that gives too many blobs, only tensors twice
    as large do, and so on.

    Returns:
        The blobs in order, one behind the other; none for a small file.

    Raises:
        ModelError: not a readable flatbuffer.
    """
    if len(data) < SMALLEST_CUT_BYTES:
        return ()
    buffers = find_buffers(data)
    least_bytes = _LEAST_TENSOR_BYTES
    while True:
        ends = tuple(_cut(data, buffers, least_bytes))
        if len(ends) <= MAXIMUM_BLOBS:
            break
        least_bytes *= 2
    blobs: list[Blob] = []
    first = 0
    for end in ends:
        digest = hashlib.sha256(memoryview(data)[first:end]).hexdigest()
        blobs.append(Blob(offset=first, num_bytes=end - first, sha256=digest))
        first = end
    return tuple(blobs)


def blob_faults(data: bytes, blobs: Sequence[Blob]) -> tuple[str, ...]:
    """Say which blob of a manifest is not what stands in the model's file."""
    view = memoryview(data)
    return tuple(
        f"blobs[{index}]: its sha256 is not that of its bytes"
        for index, blob in enumerate(blobs)
        if hashlib.sha256(view[blob.offset : blob.offset + blob.num_bytes]).hexdigest()
        != blob.sha256
    )


def _cut(data: bytes, buffers: Sequence[tuple[int, int]], least_bytes: int) -> Iterator[int]:
    """Give the end of each blob, in order."""
    end = 0
    for first, num_bytes in buffers:
        if num_bytes < least_bytes:
            continue
        yield from _cut_stretch(data, end, first, least_bytes)
        end = first + num_bytes
        yield end
    yield from _cut_stretch(data, end, len(data), least_bytes)


def _cut_stretch(data: bytes, first: int, end: int, least_bytes: int) -> Iterator[int]:
    """Cut where the hash of the bytes before says so; blobs of twice `least_bytes` on average."""
    shortest, longest = least_bytes, 8 * least_bytes
    start = first
    if end - first > 2 * shortest:
        for place in (first + each for each in _find_places(data[first:end], least_bytes)):
            while place - start > longest:
                start += longest
                yield start
            # What is left must not be a crumb either.
            if place - start >= shortest and end - place >= shortest:
                start = place
                yield start
    while end - start > longest:
        start += longest
        yield start
    if end > start:
        yield end


def _find_places(stretch: bytes, least_bytes: int) -> Sequence[int]:
    """Give the places behind which a rolling hash of 32 bytes has as many leading zero bits."""
    hashes = _GEAR[np.frombuffer(stretch, dtype=np.uint8)]
    for doubling in range(_WINDOW_DOUBLINGS):
        width = 1 << doubling
        hashes[width:] += hashes[:-width] << np.uint32(width)
    num_bits = least_bytes.bit_length() - 1
    found: list[int] = (np.flatnonzero(hashes >> np.uint32(32 - num_bits) == 0) + 1).tolist()
    return found
