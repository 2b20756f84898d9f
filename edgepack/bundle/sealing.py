"""Signing a bundle that exists, and what of one a signature is checked by."""

import stat
from collections.abc import Callable

from edgepack.bundle.archive import Bundle, write_contents
from edgepack.bundle.manifest import MANIFEST_PATH, SIGNATURE_PATH
from edgepack.signing.seal import Seal


def read_seal(bundle: Bundle) -> Seal:
    """Give a bundle's manifest and its signature.

    Raises:
        BundleError: the bundle changed since it was opened.
    """
    return Seal(
        name=str(bundle.path),
        manifest=bundle.read(MANIFEST_PATH),
        signature=bundle.read(SIGNATURE_PATH) if bundle.is_signed else None,
    )


def sign_bundle(bundle: Bundle, sign: Callable[[bytes], bytes]) -> Bundle:
    """Write a bundle anew with a signature, in place of an earlier one; all else stays.

    Args:
        bundle: an opened, verified bundle.
        sign: gives the signature of the manifest's bytes.

    Raises:
        SignatureError: the manifest could not be signed; the bundle is as it was.
        BundleError: it changed since it was opened, or the disk cannot be written; likewise.
    """
    paths = [entry.path for entry in bundle.entries if entry.path != SIGNATURE_PATH]
    signature = sign(bundle.read(MANIFEST_PATH))
    contents = [(path, bundle.read(path)) for path in paths]
    # What its owner alone may read stays so.
    mode = stat.S_IMODE(bundle.path.stat().st_mode)
    return write_contents(bundle.path, [*contents, (SIGNATURE_PATH, signature)], mode=mode)
