"""Reading a bundle's manifest, which anyone may have written: all its faults at once."""

import json
import re
from typing import Final

from edgepack._fields import Fields, join_faults
from edgepack.bundle.container import path_faults
from edgepack.bundle.example import EXAMPLE_PATH
from edgepack.bundle.manifest import (
    EXTRA_FOLDER,
    FORMAT,
    MANIFEST_PATH,
    MAXIMUM_BLOBS,
    MAXIMUM_GOLDEN_SAMPLES,
    MODEL_PATH,
    RECIPE_PATH,
    SIGNATURE_PATH,
    Artifact,
    Blob,
    BundleManifest,
    FileRecord,
    Parity,
    ParityRecord,
    Provenance,
    encode_manifest,
    golden_sizes,
    identity_faults,
)
from edgepack.contract.record import read_contract
from edgepack.errors import BundleError, RecipeError
from edgepack.fidelity import Judgement, read_fidelity
from edgepack.model import read_signature
from edgepack.optimize.recipes.recipe import Recipe, read_recipe
from edgepack.optimize.recipes.recipe_file import parse_recipe
from edgepack.profile import EngineName, TargetProfile, profile_digest, read_profile

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_BLOB: Final = re.compile(r"(\d{1,10}) ([1-9]\d{0,9}) ([0-9a-f]{64})")
_LIMIT_DB: Final = 300.0


def parse_manifest(data: bytes) -> BundleManifest:
    """Read a manifest.

    Raises:
        BundleError: not JSON, or breaking the schema; all faults are listed.
    """
    remedy = "Pack the model again, or use the version of EdgePack that wrote the bundle."
    try:
        table = json.loads(data.decode("ascii"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{MANIFEST_PATH}: expected JSON, but reading it failed: {error}", remedy=remedy
        ) from error
    if not isinstance(table, dict):
        raise BundleError(f"{MANIFEST_PATH}: expected a table, not a list or value", remedy=remedy)
    fields = Fields(table)
    version = fields.integer("format")
    if type(table.get("format")) is int and version != FORMAT:
        raise BundleError(
            f"{MANIFEST_PATH}: expected format {FORMAT}, not {version}",
            remedy="Use the version of EdgePack that wrote the bundle, or pack the model again.",
        )
    manifest = _read_manifest(fields)
    fields.close()
    if not fields.faults and encode_manifest(manifest) != data:
        fields.faults.append("expected the canonical spelling: it was written by another program")
    if fields.faults:
        raise BundleError(join_faults(MANIFEST_PATH, fields.faults), remedy=remedy)
    return manifest


def recipe_faults(data: bytes, recipe: Recipe) -> tuple[str, ...]:
    """Say why a bundle's recipe file is not that of the recipe its manifest states."""
    try:
        written = parse_recipe(data.decode("utf-8"), name=recipe.name)
    except UnicodeDecodeError:
        return (f"{RECIPE_PATH}: expected UTF-8 text",)
    except RecipeError as error:
        return (f"{RECIPE_PATH}: {error.message}",)
    if written != recipe:
        return (f"{RECIPE_PATH}: its recipe is not the one the manifest states",)
    return ()


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a finite number")


def _read_manifest(fields: Fields) -> BundleManifest:
    name, version = fields.text("name"), fields.text("version")
    fields.faults += identity_faults(name, version)
    golden = fields.table("golden", required=True)
    num_faults = len(fields.faults)
    signature = read_signature(fields.table("signature", required=True))
    # What a faulty signature says can be compared with nothing.
    known = signature if len(fields.faults) == num_faults else None
    manifest = BundleManifest(
        name=name,
        version=version,
        target=_read_target(fields.table("target", required=True)),
        recipe=read_recipe(fields.table("recipe", required=True)),
        signature=signature,
        contract=read_contract(fields.table("contract", required=True), known),
        fidelity=read_fidelity(fields.table("fidelity", required=True)),
        parity=_read_parity(fields),
        provenance=_read_provenance(fields.table("provenance", required=True)),
        artifacts=tuple(_read_artifact(each) for each in fields.tables("artifacts")),
        golden_num_samples=golden.integer("num_samples", minimum=1, maximum=MAXIMUM_GOLDEN_SAMPLES),
        files=tuple(_read_record(each) for each in fields.tables("files")),
        class_names=fields.nullable_text("class_names"),
        blobs=_read_blobs(fields),
    )
    golden.close()
    _check_files(fields, manifest)
    return manifest


def _read_target(fields: Fields) -> TargetProfile:
    digest = _sha256(fields, "profile_sha256")
    num_faults = len(fields.faults)
    profile = read_profile(fields.table("profile", required=True), profile_id=fields.text("id"))
    if len(fields.faults) == num_faults and profile_digest(profile) != digest:
        fields.fault("profile_sha256", "expected the digest of `profile`")
    fields.close()
    return profile


def _read_parity(fields: Fields) -> Parity | None:
    if fields.has("parity") and fields.raw("parity") is None:
        return None
    table = fields.table("parity", required=True)
    parity = Parity(
        outputs=tuple(_read_parity_record(each) for each in table.tables("outputs")),
        num_samples=table.integer("num_samples", minimum=1),
        generated=table.boolean("generated"),
        minimum_db=table.number("minimum_db", minimum=-_LIMIT_DB, maximum=_LIMIT_DB),
        reference=table.text("reference"),
        seeds=table.integers("seeds", minimum=0),
    )
    table.close()
    return parity


def _read_parity_record(fields: Fields) -> ParityRecord:
    record = ParityRecord(
        output=fields.text("output", empty=True),
        sqnr_db=fields.number("sqnr_db", minimum=-_LIMIT_DB, maximum=_LIMIT_DB),
        max_abs_error=fields.number("max_abs_error", minimum=0.0),
        cosine=fields.number("cosine", minimum=-1.0, maximum=1.0),
        judgement=fields.choice("judgement", Judgement),
        top1_agreement=_optional_share(fields, "top1_agreement"),
        equal_share=_optional_share(fields, "equal_share"),
        seed=None if fields.raw("seed") is None else fields.integer("seed", minimum=0),
    )
    fields.close()
    return record


def _optional_share(fields: Fields, key: str) -> float | None:
    if fields.raw(key) is None:
        return None
    return fields.number(key, minimum=0.0, maximum=1.0)


def _read_provenance(fields: Fields) -> Provenance:
    source = fields.table("source", required=True)
    calibration = fields.table("calibration", required=True)
    versions = fields.table("versions", required=True)
    provenance = Provenance(
        source_name=source.text("name"),
        source_format=source.text("format"),
        source_sha256=_sha256(source, "sha256"),
        converter=fields.text("converter"),
        tool_version=fields.text("tool_version"),
        versions=tuple((key, versions.text(key)) for key in sorted(versions.keys())),
        calibration_digest=calibration.nullable_text("digest"),
        calibration_num_samples=calibration.integer("num_samples", minimum=0),
        evaluation_digest=fields.nullable_text("evaluation_digest"),
        attempts=tuple(_read_attempt(each) for each in fields.tables("attempts")),
    )
    source.close()
    calibration.close()
    fields.close()
    return provenance


def _read_attempt(fields: Fields) -> tuple[str, str | None]:
    attempt = fields.text("converter"), fields.nullable_text("fault")
    fields.close()
    return attempt


def _read_artifact(fields: Fields) -> Artifact:
    artifact = Artifact(
        engine=fields.choice("engine", EngineName),
        file=fields.text("file"),
        arch=fields.nullable_text("arch"),
    )
    fields.close()
    return artifact


def _read_record(fields: Fields) -> FileRecord:
    record = FileRecord(
        path=fields.text("path"),
        sha256=_sha256(fields, "sha256"),
        num_bytes=fields.integer("num_bytes", minimum=0),
    )
    fields.close()
    return record


def _read_blobs(fields: Fields) -> tuple[Blob, ...]:
    texts = fields.texts("blobs", ())
    listed = fields.raw("blobs")
    if isinstance(listed, list) and not 0 < len(listed) <= MAXIMUM_BLOBS:
        fields.fault("blobs", f"expected 1 to {MAXIMUM_BLOBS}, not {len(listed)}")
        return ()
    blobs: list[Blob] = []
    for index, text in enumerate(texts):
        match = _BLOB.fullmatch(text)
        if match is None:
            expected = "expected offset, bytes and 64 lowercase hex digits"
            fields.fault(f"blobs[{index}]", f"{expected}, not {text[:90]!r}")
        else:
            blobs.append(Blob(offset=int(match[1]), num_bytes=int(match[2]), sha256=match[3]))
    return tuple(blobs)


def _sha256(fields: Fields, key: str) -> str:
    digest = fields.text(key)
    if digest and not _SHA256.fullmatch(digest):
        fields.fault(key, f"expected 64 lowercase hex digits, not {digest[:70]!r}")
    return digest


def _check_files(fields: Fields, manifest: BundleManifest) -> None:
    """Note what does not hold between the file records and the rest."""
    paths = [record.path for record in manifest.files]
    fields.faults += path_faults([MANIFEST_PATH, SIGNATURE_PATH, *paths])
    if paths != sorted(paths):
        fields.fault("files", "expected them sorted by path")
    if not manifest.artifacts:
        fields.fault("artifacts", "expected at least one")
    named = [(f"artifacts[{i}].file", each.file) for i, each in enumerate(manifest.artifacts)]
    if manifest.class_names is not None:
        named.append(("class_names", manifest.class_names))
    elif any(each.has_labels for each in manifest.contract.outputs):
        fields.fault("contract", "an output has labels, but there are no class names")
    for key, path in named:
        if path not in paths:
            fields.fault(key, f"expected the path of a listed file, not {path!r}")
    if fields.faults:
        return  # the signature may be nonsense, and then golden sizes are too
    sizes = {record.path: record.num_bytes for record in manifest.files}
    _check_blobs(fields, manifest.blobs, num_bytes=sizes.get(MODEL_PATH, 0))
    golden = golden_sizes(manifest.signature, manifest.golden_num_samples)
    for path, num_bytes in golden.items():
        if sizes.get(path) != num_bytes:
            came = f"{sizes[path]} bytes" if path in sizes else "none"
            fields.fault("files", f"expected {path!r} of {num_bytes} bytes, but got {came}")
    _check_strays(fields, manifest, {*golden, EXAMPLE_PATH, RECIPE_PATH})


def _check_blobs(fields: Fields, blobs: tuple[Blob, ...], *, num_bytes: int) -> None:
    """Note a gap or an overlap: the blobs are the model's file, from its first byte to its last."""
    end = 0
    for index, blob in enumerate(blobs):
        if blob.offset != end:
            fields.fault(f"blobs[{index}]", f"expected it to begin at {end}, not {blob.offset}")
            return
        end += blob.num_bytes
    if blobs and end != num_bytes:
        fields.fault("blobs", f"expected {num_bytes} bytes of {MODEL_PATH} in all, not {end}")


def _check_strays(fields: Fields, manifest: BundleManifest, known: set[str]) -> None:
    paths = [record.path for record in manifest.files]
    strays = [
        path
        for path in paths
        if path not in known
        and not path.startswith(EXTRA_FOLDER)
        and path not in {each.file for each in manifest.artifacts}
    ]
    for path in strays:
        fields.fault(
            "files",
            f"{path!r} is neither an artifact, golden, {EXAMPLE_PATH}, {RECIPE_PATH}, nor below "
            f"{EXTRA_FOLDER}",
        )
