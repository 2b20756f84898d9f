"""sha256 on a device: by whichever program is there, else here, over what is read back."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

from edgepack.device.wire.transport import Device

UNHASHED: Final = "-"
"""What `sha256` prints on a device that has no program for it."""

_READ_SECONDS: Final = 60.0
_SLOWEST_LINK_BYTES_PER_SECOND: Final = 128 * 1024
_HASHED: Final = re.compile(r"([0-9a-f]{64}|-) (.*)")

# Defines `sha256`, which hashes standard input. A program is taken once it hashes `abc` as
# FIPS 180-4 does: what only looks like one (macOS's python3 without developer tools, an openssl
# without its configuration) is passed over. GNU, BusyBox and toybox have sha256sum, macOS and
# Perl shasum, FreeBSD sha256, coreutils from 9.0 cksum -a. `prefer PROGRAM` puts one first.
SHA256_FUNCTION: Final = """
hash_with_perl() {
  perl -MDigest::SHA -e 'print Digest::SHA->new(256)->addfile(*STDIN, "b")->hexdigest'
}
hash_with_python() {
  python3 -I -c 'import hashlib, sys
sum = hashlib.sha256()
for part in iter(lambda: sys.stdin.buffer.read(1 << 20), b""): sum.update(part)
print(sum.hexdigest())'
}
prefer() {
  for hash_with in "$@" sha256sum 'shasum -a 256' 'openssl dgst -sha256 -r' 'sha256 -q' \
      'busybox sha256sum' 'toybox sha256sum' 'cksum -a sha256 --untagged' \
      hash_with_perl hash_with_python; do
    case $(printf abc | $hash_with 2>/dev/null) in
    ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad*) return ;;
    esac
  done
  hash_with=none
}
sha256() {
  if [ "$hash_with" = none ]; then echo -; else $hash_with; fi
}
prefer
"""


def read_hashes(
    device: Device, lines: Iterable[str], *, folder: str, sizes: Mapping[str, int]
) -> dict[str, str]:
    """Read lines `DIGEST PATH` of a device; what it could not hash is read back and hashed here.

    Args:
        device: a connected device.
        lines: what its script printed; others are passed over.
        folder: absolute, what the paths are relative to.
        sizes: bytes that each path should have; other paths are passed over.

    Returns:
        The digest of each path; a path that cannot be read has none.

    Raises:
        ConnectError: the link was lost.
        DeviceTimeoutError: a file did not come in time.
    """
    digests: dict[str, str] = {}
    for line in lines:
        match = _HASHED.fullmatch(line)
        if match is None or match[2] not in sizes:
            continue
        digest: str | None = match[1]
        if digest == UNHASHED:
            path = f"{folder}/{match[2]}"
            digest = _read_back(device, path, sizes[match[2]])
        if digest is not None:
            digests[match[2]] = digest
    return digests


def _read_back(device: Device, path: str, num_bytes: int) -> str | None:
    """Hash a file here, of which one byte more than it should have is enough."""
    result = device.run(
        ["head", "-c", str(num_bytes + 1), path],
        timeout_seconds=_READ_SECONDS + num_bytes / _SLOWEST_LINK_BYTES_PER_SECOND,
        max_output_bytes=num_bytes + 1,
    )
    return hashlib.sha256(result.stdout).hexdigest() if result.exit_code == 0 else None
