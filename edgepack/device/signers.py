"""What a device's own list of allowed signers says of a bundle, before a byte of it is sent."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from edgepack.device.finding import Finding, Severity, Topic
from edgepack.device.premises import SignersFile
from edgepack.errors import SignatureError
from edgepack.signing.allowed_signers import AllowedSigners, parse_allowed_signers
from edgepack.signing.seal import Seal, require_signer

FILE_NAME: Final = "allowed_signers"


def read_signers(file: SignersFile, *, root: str) -> AllowedSigners:
    """Read a device's list.

    Raises:
        SignatureError: it cannot be told who is on it.
    """
    name = f"the device's {root}/{FILE_NAME}"
    if file.fault:
        raise SignatureError(
            f"{name}: expected a list of allowed signers, but {file.fault}",
            remedy="Mend the file on the device, or ask its owner to.",
        )
    return parse_allowed_signers(file.text.encode(), name=name)


def judge_signature(
    file: SignersFile | None, seal: Seal | None, *, root: str, now: datetime
) -> Iterator[Finding]:
    """Hold a bundle to a device's list, or tell of the list where there is no bundle.

    Args:
        file: the list; None where the device has none, so that it takes anything.
        seal: of what is to be deployed; None where there is no bundle.
        root: the deploy root, absolute.
        now: what time it is, by this machine's clock: boards without a battery have none.
    """
    if file is None:
        return
    try:
        signers = read_signers(file, root=root)
        if seal is not None:
            require_signer(seal, signers, now=now)
            return
    except SignatureError as error:
        yield Finding(
            severity=Severity.ERROR,
            topic=Topic.SIGNATURE,
            expected=f"a bundle that {root}/{FILE_NAME} on the device lets in",
            found=error.message,
            fix=error.remedy,
            sentence=error.message,
        )
        return
    keys = f"{signers.num_keys} key{'' if signers.num_keys == 1 else 's'}"
    yield Finding(
        severity=Severity.NOTE,
        topic=Topic.SIGNATURE,
        expected="to deploy whatever is given",
        found=f"the device takes bundles alone that are signed with {keys} of {root}/{FILE_NAME}",
        fix="Sign with `edgepack sign BUNDLE --key KEY`, or pack with `--sign KEY`.",
    )
