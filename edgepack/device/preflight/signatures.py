"""Whether a device's own list of allowed signers lets a bundle in; pure."""

from collections.abc import Iterator
from datetime import datetime

from edgepack.device.preflight.finding import Finding, Severity, Topic
from edgepack.device.store.layout import SIGNERS_NAME
from edgepack.device.store.signers import SignersFile, read_signers
from edgepack.errors import SignatureError
from edgepack.signing.seal import Seal, require_signer


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
            expected=f"a bundle that {root}/{SIGNERS_NAME} on the device lets in",
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
        found="the device takes bundles alone that are signed with "
        f"{keys} of {root}/{SIGNERS_NAME}",
        fix="Sign with `edgepack sign BUNDLE --key KEY`, or pack with `--sign KEY`.",
    )
