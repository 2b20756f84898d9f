"""What a device's own list of allowed signers says of a bundle, before a byte of it is sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from edgepack.device.store.layout import SIGNERS_NAME, run_step
from edgepack.device.wire.sections import MAX_LINES, split_sections
from edgepack.device.wire.transport import Device
from edgepack.errors import SignatureError
from edgepack.signing.allowed_signers import (
    MAXIMUM_BYTES,
    AllowedSigners,
    parse_allowed_signers,
)
from edgepack.signing.seal import Seal, require_signer

# `$1` the deploy root. Each line of the list stands behind a colon, so that none is taken for an
# answer of ours.
PRINT_SIGNERS: Final = f"""
list=$1/{SIGNERS_NAME}
if [ -f "$list" ] && [ -r "$list" ]
then echo readable; head -c {MAXIMUM_BYTES + 2} "$list" | sed s/^/:/
elif [ -e "$list" ] || [ -L "$list" ]; then echo there; fi
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SignersFile:
    """A device's own list of allowed signers, `ROOT/allowed_signers`.

    Attributes:
        text: what stands in it.
        fault: why it cannot be told; empty when it can.
    """

    text: str = ""
    fault: str = ""


def parse_signers(lines: Sequence[str]) -> SignersFile | None:
    """Read what `PRINT_SIGNERS` printed, as a section's lines; None where there is no list."""
    if not lines:
        return None
    if lines[0] != "readable":
        return SignersFile(fault="it cannot be read")
    if len(lines) >= MAX_LINES:
        return SignersFile(fault=f"it has {MAX_LINES} lines or more")
    if not all(line.startswith(":") for line in lines[1:]):
        return SignersFile(fault="it is no text")
    return SignersFile(text="\n".join(line[1:] for line in lines[1:]))


def ask_signers(device: Device, *, root: str) -> SignersFile | None:
    """Ask a device for its list; None where it has none.

    Args:
        device: a connected device.
        root: the deploy root, absolute.

    Raises:
        DeviceError: it does not answer.
    """
    path = f"{root}/{SIGNERS_NAME}"
    result = run_step(device, f"echo @@signers{PRINT_SIGNERS}:", root, action=f"read {path}")
    return parse_signers(split_sections(result.text).get("signers", ()))


def read_signers(file: SignersFile, *, root: str) -> AllowedSigners:
    """Read a device's list.

    Raises:
        SignatureError: it cannot be told who is on it.
    """
    name = f"the device's {root}/{SIGNERS_NAME}"
    if file.fault:
        raise SignatureError(
            f"{name}: expected a list of allowed signers, but {file.fault}",
            remedy="Mend the file on the device, or ask its owner to.",
        )
    return parse_allowed_signers(file.text.encode(), name=name)


def admit_bundle(device: Device, seal: Seal, *, root: str) -> None:
    """Hold a bundle to a device's list, right before it is sent.

    Args:
        device: a connected device.
        seal: of the bundle.
        root: the deploy root, absolute.

    Raises:
        SignatureError: the list does not let it in, or cannot be used.
        DeviceError: the device does not answer.
    """
    file = ask_signers(device, root=root)
    if file is not None:
        require_signer(seal, read_signers(file, root=root), now=datetime.now(tz=UTC))
