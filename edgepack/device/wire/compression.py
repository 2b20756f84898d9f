"""Compression on the wire: when it pays, and how.

What is sent is compressed as it goes, and the device unpacks it as it comes, so that a transfer
that is cut leaves the beginning of the file itself, whichever way the next push takes. The
digest is of the file.
"""

import subprocess
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from shutil import which
from typing import IO, Final

from edgepack.interrupts import start_thread


class Codec(StrEnum):
    """How bytes are compressed, by the name of the program that unpacks them."""

    ZSTD = "zstd"
    GZIP = "gzip"


# What a Raspberry Pi Zero 2 unpacks a second, with GNU's and with BusyBox's programs: a lower
# bound, so that a link is never made to wait for the device.
_UNPACKED_BYTES_PER_SECOND: Final = {Codec.ZSTD: 60e6, Codec.GZIP: 15e6}
_GZIP_LEVEL: Final = 6
_ZSTD_LEVEL: Final = 3
_GZIP_WINDOW: Final = 31  # of zlib: the largest window, with gzip's head and tail
_ZSTD_READ_BYTES: Final = 256 * 1024

_NUM_SAMPLES: Final = 8
_SAMPLE_BYTES: Final = 16 * 1024
_LEAST_BYTES: Final = 64 * 1024
_LEAST_GAIN: Final = 0.05

# Less time than this beyond that of a command without anything to send may be chance.
_LEAST_EXCESS_SECONDS: Final = 0.05
_LEAST_TURNS: Final = 2.0
# The better codec is the quicker one too, on both sides; by so much less it packs as well.
_EQUAL_SHARE: Final = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """An upload that was timed.

    Attributes:
        num_bytes: that went over the wire.
        seconds: from the request to the answer.
    """

    num_bytes: int
    seconds: float


def host_codecs() -> tuple[Codec, ...]:
    """Give the codecs of this machine, the better first."""
    return (Codec.ZSTD, Codec.GZIP) if which("zstd") else (Codec.GZIP,)


def unpack_command(codec: Codec) -> str:
    """Give what unpacks standard input to standard output, in a device's shell."""
    return f"{codec} -d -c"


def link_rate(timings: Collection[Timing], *, turn_seconds: float) -> float | None:
    """Give the bytes a second of a link that is seen to be slow; None where it is not.

    The time of a command's turn is no property of the link's rate. Only what goes far beyond it
    is: a small upload proves a very slow link at most, a large one also one that is less so.

    Args:
        timings: of what was sent just now.
        turn_seconds: what a command took that sent nothing to speak of.
    """
    excess_seconds = sum(each.seconds - turn_seconds for each in timings)
    if excess_seconds < max(_LEAST_EXCESS_SECONDS, _LEAST_TURNS * turn_seconds):
        return None
    return sum(each.num_bytes for each in timings) / excess_seconds


def sample_ratio(content: bytes | Path, codec: Codec) -> float:
    """Compress parts of a file, evenly apart; give their size by what it was."""
    num_bytes = len(content) if isinstance(content, bytes) else content.stat().st_size
    step = max(_SAMPLE_BYTES, num_bytes // _NUM_SAMPLES)
    sample = b"".join(_cut_out(content, first) for first in range(0, num_bytes, step))
    if not sample:
        return 1.0
    return sum(map(len, compress(iter((memoryview(sample),)), codec))) / len(sample)


def can_be_compressed(content: bytes | Path) -> bool:
    """Tell whether a file looks as if compressing it could pay on some link."""
    return sample_ratio(content, Codec.GZIP) < 1 - _LEAST_GAIN


def _cut_out(content: bytes | Path, first: int) -> bytes:
    if isinstance(content, bytes):
        return content[first : first + _SAMPLE_BYTES]
    with content.open("rb") as file:
        file.seek(first)
        return file.read(_SAMPLE_BYTES)


def choose_codec(
    content: bytes | Path, *, rate: float | None, offered: Sequence[Codec]
) -> Codec | None:
    """Choose how a file goes over a link; None sends it as it is.

    Args:
        content: the file.
        rate: of the link in bytes a second, as `link_rate` gave it.
        offered: what this machine packs and the device unpacks, the better first.
    """
    num_bytes = len(content) if isinstance(content, bytes) else content.stat().st_size
    if rate is None or num_bytes < _LEAST_BYTES:
        return None
    seconds = {
        codec: max(sample_ratio(content, codec) / rate, 1 / _UNPACKED_BYTES_PER_SECOND[codec])
        for codec in offered
        if rate < _UNPACKED_BYTES_PER_SECOND[codec]
    }
    if not seconds or min(seconds.values()) >= (1 - _LEAST_GAIN) / rate:
        return None
    enough_seconds = (1 + _EQUAL_SHARE) * min(seconds.values())
    return next(codec for codec in offered if seconds.get(codec, enough_seconds) < enough_seconds)


def compress(parts: Iterator[memoryview], codec: Codec) -> Iterator[memoryview]:
    """Compress parts of a file as they are asked for."""
    if codec is Codec.ZSTD:
        yield from _compress_by_program(parts, ("zstd", "-q", "-c", f"-{_ZSTD_LEVEL}"))
        return
    packer = zlib.compressobj(level=_GZIP_LEVEL, wbits=_GZIP_WINDOW)
    for part in parts:
        if packed := packer.compress(part):
            yield memoryview(packed)
    yield memoryview(packer.flush())


def _compress_by_program(
    parts: Iterator[memoryview], argv: tuple[str, ...]
) -> Iterator[memoryview]:
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None  # noqa: S101 - PIPE was asked for
        assert process.stdout is not None  # noqa: S101 - likewise
        feeder = start_thread(_feed, process.stdin, parts)
        try:
            while packed := process.stdout.read(_ZSTD_READ_BYTES):
                yield memoryview(packed)
        finally:
            process.stdout.close()  # one that is left early ends at its next write
            feeder.join()


def _feed(pipe: IO[bytes], parts: Iterator[memoryview]) -> None:
    with suppress(BrokenPipeError), pipe:
        for part in parts:
            pipe.write(part)
