"""SSH's encoding of strings: four bytes of length, most significant first, then the bytes.

Source: RFC 4251, section 5.
"""

import struct
from typing import Final

_LENGTH: Final = struct.Struct(">I")


def pack_strings(*strings: bytes) -> bytes:
    """Give strings one behind the other, each with its length."""
    return b"".join(_LENGTH.pack(len(each)) + each for each in strings)


def split_strings(data: bytes) -> tuple[bytes, ...]:
    """Take bytes apart that are nothing but strings.

    Raises:
        ValueError: the last one is cut short.
    """
    found: list[bytes] = []
    position = 0
    while position < len(data):
        start = position + _LENGTH.size
        if start > len(data):
            raise ValueError(f"{len(data) - position} bytes where a length of 4 bytes should be")
        (length,) = _LENGTH.unpack_from(data, position)
        position = start + length
        if position > len(data):
            raise ValueError(f"a text of {length} bytes where {len(data) - start} are left")
        found.append(data[start:position])
    return tuple(found)
