"""Bundles on disk: write one atomically, open one, find every fault of one."""

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from edgepack._fields import join_faults
from edgepack.bundle.blobs import blob_faults, cut_blobs
from edgepack.bundle.container import Entry, path_faults, scan_container, write_container
from edgepack.bundle.example import EXAMPLE_PATH, make_example
from edgepack.bundle.golden import Golden, check_golden
from edgepack.bundle.manifest import (
    EXTRA_FOLDER,
    MANIFEST_PATH,
    MODEL_PATH,
    RECIPE_PATH,
    SIGNATURE_PATH,
    Artifact,
    BundleManifest,
    FileRecord,
    Parity,
    Provenance,
    check_identity,
    encode_manifest,
    golden_paths,
)
from edgepack.bundle.reading import parse_manifest, recipe_faults
from edgepack.contract.record import IOContract, plain_contract
from edgepack.errors import BundleError, ModelError
from edgepack.fidelity import Fidelity
from edgepack.model import Model, read_model
from edgepack.optimize.recipes.recipe import Recipe
from edgepack.optimize.recipes.recipe_file import recipe_to_toml
from edgepack.profile import EngineName, TargetProfile

MAXIMUM_MANIFEST_BYTES: Final = 4 * 2**20
MAXIMUM_SIGNATURE_BYTES: Final = 16 * 2**10
_RELEASE_DIGITS: Final = 12
_DAMAGED: Final = (
    "Copy the bundle again, or pack it again; a bundle may not be edited or re-zipped."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A bundle on disk whose every byte was verified when it was opened.

    Attributes:
        path: where it is.
        sha256: hex digest of the file as it is without a signature: signing changes nothing of it.
        file_sha256: hex digest of the whole file.
        num_bytes: size of the whole file.
        manifest: what it holds.
        entries: where each file lies, the manifest first, a signature last.
    """

    path: Path
    sha256: str
    file_sha256: str
    num_bytes: int
    manifest: BundleManifest
    entries: tuple[Entry, ...] = field(repr=False)

    @property
    def release(self) -> str:
        """What the bundle is called on devices: 12 hex digits of its digest."""
        return self.sha256[:_RELEASE_DIGITS]

    def files(self) -> tuple[FileRecord, ...]:
        """Give a record of every file, the manifest first."""
        return tuple(
            FileRecord(path=each.path, sha256=each.sha256, num_bytes=each.num_bytes)
            for each in self.entries
        )

    def read(self, path: str) -> bytes:
        """Read one file, checking its digest again.

        Raises:
            BundleError: no such file in the bundle; the bundle changed since it was opened.
        """
        entry = next((each for each in self.entries if each.path == path), None)
        if entry is None:
            raise BundleError(
                f"{self.path}: expected one of the bundle's files, not {path!r}",
                remedy="`edgepack inspect` lists them.",
            )
        with _open(self.path) as file:
            file.seek(entry.offset)
            data = file.read(entry.num_bytes)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleError(
                f"{self.path}: {path!r} changed since the bundle was opened",
                remedy="Do not replace a bundle while it is in use; run the command again.",
            )
        return data

    @property
    def is_signed(self) -> bool:
        """Whether it holds a signature, right or wrong."""
        return self.entries[-1].path == SIGNATURE_PATH

    def golden(self) -> Golden:
        """Read the golden samples.

        Raises:
            BundleError: as `read`.
        """
        inputs, reference, host = golden_paths(self.manifest.signature)
        return Golden(
            num_samples=self.manifest.golden_num_samples,
            inputs=tuple(self.read(path) for path in inputs),
            reference=tuple(self.read(path) for path in reference),
            host=tuple(self.read(path) for path in host),
        )


def write_bundle(
    path: Path,
    *,
    name: str,
    version: str,
    target: TargetProfile,
    recipe: Recipe,
    fidelity: Fidelity,
    parity: Parity | None,
    provenance: Provenance,
    model: Model,
    golden: Golden,
    extra_files: Mapping[str, bytes] | None = None,
    class_names: str | None = None,
    contract: IOContract | None = None,
    sign: Callable[[bytes], bytes] | None = None,
) -> Bundle:
    """Write a bundle; the same arguments give the same bytes on every machine.

    It is written under a temporary name beside `path`, read back and verified, flushed to
    the disk, and only then renamed: `path` holds a whole bundle or what it held before.

    Args:
        path: where to; an earlier bundle there is replaced, any other file is not.
        name: what the release is called on devices.
        version: its version.
        target: the profile it is packed for.
        recipe: what was done to the float model.
        fidelity: how near the packed model is to the float model.
        parity: how near the float model is to its source; None when the source is TFLite.
        provenance: where the model comes from.
        model: the packed model.
        golden: its golden samples.
        extra_files: further files by name; they stand below `files/`.
        class_names: which of the extra files holds the class names.
        contract: what the model's inputs want and its outputs mean; None knows nothing beyond
            the signature.
        sign: gives the signature of the manifest's bytes; None leaves the bundle unsigned.

    Raises:
        UsageError: a name or version that cannot be a file name.
        RecipeError: a recipe that asks for what cannot be had.
        BundleError: arguments that contradict each other, or a disk that cannot be written.
        SignatureError: the manifest could not be signed.
    """
    check_identity(name, version)
    check_golden(golden, model.signature)
    extra = {f"{EXTRA_FOLDER}{key}": data for key, data in (extra_files or {}).items()}
    if class_names is not None and f"{EXTRA_FOLDER}{class_names}" not in extra:
        raise BundleError(
            f"expected the class names {class_names!r} among the extra files",
            remedy="Give the file too.",
        )
    inputs, reference, host = golden_paths(model.signature)
    labels = None if class_names is None else f"{EXTRA_FOLDER}{class_names}"
    contract = contract or plain_contract(model.signature)
    example = make_example(
        model.signature,
        contract,
        name=name,
        version=version,
        model_path=MODEL_PATH,
        labels_path=labels,
    )
    recipe_text = recipe_to_toml(recipe).encode()
    contents = {MODEL_PATH: model.data, EXAMPLE_PATH: example, RECIPE_PATH: recipe_text} | extra
    contents |= dict(zip(inputs, golden.inputs, strict=True))
    contents |= dict(zip(reference, golden.reference, strict=True))
    contents |= dict(zip(host, golden.host, strict=True))
    faults = path_faults(contents)
    if faults:
        raise BundleError(
            join_faults("files for the bundle", faults), remedy="Rename the files and pack again."
        )
    ordered = sorted(contents.items())
    manifest = BundleManifest(
        name=name,
        version=version,
        target=target,
        recipe=recipe,
        signature=model.signature,
        contract=contract,
        fidelity=fidelity,
        parity=parity,
        provenance=provenance,
        artifacts=(Artifact(engine=EngineName.TFLITE, file=MODEL_PATH),),
        golden_num_samples=golden.num_samples,
        files=tuple(
            FileRecord(path=each, sha256=hashlib.sha256(data).hexdigest(), num_bytes=len(data))
            for each, data in ordered
        ),
        class_names=labels,
        blobs=cut_blobs(model.data),
    )
    encoded = encode_manifest(manifest)
    signed = [] if sign is None else [(SIGNATURE_PATH, sign(encoded))]
    return write_contents(path, [(MANIFEST_PATH, encoded), *ordered, *signed])


def write_contents(
    path: Path, contents: Sequence[tuple[str, bytes]], *, mode: int | None = None
) -> Bundle:
    """Write a bundle's files, manifest first and a signature last, all of them or none.

    Args:
        path: where to.
        contents: path in the bundle, and data, of each.
        mode: permissions of the file; None leaves them to the system.

    Raises:
        BundleError: they are no bundle, another file is in the way, or the disk cannot be written.
    """
    check_replaceable(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            write_container(file, contents)
            file.flush()
            os.fsync(file.fileno())
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        written = open_bundle(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise BundleError(
            f"{path}: the bundle cannot be written: {error.strerror or error}",
            remedy="Check the folder, its permissions and the space on its disk.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return Bundle(
        path=path,
        sha256=written.sha256,
        file_sha256=written.file_sha256,
        num_bytes=written.num_bytes,
        manifest=written.manifest,
        entries=written.entries,
    )


def open_bundle(path: Path) -> Bundle:
    """Open a bundle after verifying its structure and every byte of it.

    Raises:
        BundleError: unreadable, damaged, hostile or not a bundle; all faults are listed.
    """
    bundle, faults = _inspect(path)
    if bundle is None or faults:
        raise BundleError(join_faults(str(path), faults), remedy=_DAMAGED)
    return bundle


def verify_bundle(path: Path) -> tuple[str, ...]:
    """Give every fault of a bundle; none when it is whole.

    Beyond what `open_bundle` asks, the model must be readable and have the signature and the
    blobs that the manifest states, and the recipe file must say what the manifest says.

    Raises:
        BundleError: the file cannot be read at all.
    """
    try:
        bundle, faults = _inspect(path)
    except BundleError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return (error.message,)
    if bundle is None or faults:
        return tuple(faults)
    try:
        model = read_model(bundle.read(MODEL_PATH))
    except ModelError as error:
        return (f"{MODEL_PATH}: {error.message}",)
    if model.signature != bundle.manifest.signature:
        return (f"{MODEL_PATH}: its inputs and outputs are not those the manifest states",)
    if faults := [*blob_faults(model.data, bundle.manifest.blobs)]:
        return tuple(faults)
    has_recipe = RECIPE_PATH in {each.path for each in bundle.entries}
    return recipe_faults(bundle.read(RECIPE_PATH), bundle.manifest.recipe) if has_recipe else ()


def _inspect(path: Path) -> tuple[Bundle | None, list[str]]:
    """Read every byte and compare what is there with what should be.

    Raises:
        BundleError: unreadable, or not even a container.
    """
    with _open(path) as file:
        scan = scan_container(file, detached=SIGNATURE_PATH)
        faults = list(scan.faults)
        entries = {entry.path: entry for entry in scan.entries}
        if not scan.entries or scan.entries[0].path != MANIFEST_PATH:
            first = repr(scan.entries[0].path) if scan.entries else "nothing"
            return None, [*faults, f"expected {MANIFEST_PATH!r} as the first entry, not {first}"]
        entry = scan.entries[0]
        if entry.num_bytes > MAXIMUM_MANIFEST_BYTES:
            limit = f"at most {MAXIMUM_MANIFEST_BYTES} bytes"
            return None, [*faults, f"expected a manifest of {limit}, not {entry.num_bytes}"]
        file.seek(entry.offset)
        data = file.read(entry.num_bytes)
    try:
        manifest = parse_manifest(data)
    except BundleError as error:
        return None, [*faults, error.message]
    expected = {record.path: record for record in manifest.files}
    faults += [f"{each!r}: is missing" for each in expected if each not in entries]
    faults += [
        f"{each!r}: is not in the manifest"
        for each in entries
        if each not in expected and each not in {MANIFEST_PATH, SIGNATURE_PATH}
    ]
    signature = entries.get(SIGNATURE_PATH)
    if signature is not None and signature.num_bytes > MAXIMUM_SIGNATURE_BYTES:
        limit = f"at most {MAXIMUM_SIGNATURE_BYTES} bytes"
        faults.append(f"{SIGNATURE_PATH!r}: expected {limit}, not {signature.num_bytes}")
    for each, record in expected.items():
        found = entries.get(each)
        if found is not None and (found.sha256, found.num_bytes) != (
            record.sha256,
            record.num_bytes,
        ):
            faults.append(f"{each!r}: its data are not those the manifest states")
    order = [each.path for each in scan.entries]
    signed = [SIGNATURE_PATH] if signature is not None else []
    if not faults and order != [MANIFEST_PATH, *expected, *signed]:
        faults.append("the entries are not in the manifest's order")
    bundle = Bundle(
        path=path,
        sha256=scan.content_sha256,
        file_sha256=scan.sha256,
        num_bytes=scan.num_bytes,
        manifest=manifest,
        entries=scan.entries,
    )
    return bundle, faults


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read: {error.strerror or error}",
            remedy="Check the path and its permissions.",
        ) from error


def check_replaceable(path: Path) -> None:
    """Refuse to replace a file that is not a bundle: it may be the user's model.

    Raises:
        BundleError: another file is there, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BundleError(
            f"{path}: the bundle cannot be written: {error.strerror or error}",
            remedy="Give another output path.",
        ) from error
    if start and not (start.startswith(b"PK\x03\x04") and MANIFEST_PATH.encode() in start):
        raise BundleError(
            f"{path}: expected a free name or an earlier bundle, but another file is there",
            remedy="Give another output path, or move that file away.",
        )


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
