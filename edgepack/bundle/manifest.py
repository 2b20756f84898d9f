"""The manifest of a bundle: what was packed, for what, from what, and how good it is.

It holds no times, host names or latencies, so the same inputs give the same bytes. Its JSON
is canonical: one text stands for one manifest.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgepack._fields import Fields, join_faults
from edgepack.bundle.container import path_faults
from edgepack.errors import BundleError, UsageError
from edgepack.fidelity import Fidelity, read_fidelity
from edgepack.fidelity import to_json as fidelity_to_json
from edgepack.model import Signature, read_signature, signature_to_json
from edgepack.optimize.recipe import Recipe, read_recipe, recipe_to_json
from edgepack.profile import (
    EngineName,
    TargetProfile,
    profile_digest,
    profile_to_json,
    read_profile,
)

FORMAT: Final = 1
MANIFEST_PATH: Final = "manifest.json"
MODEL_PATH: Final = "model.tflite"
GOLDEN_FOLDER: Final = "golden/"
EXTRA_FOLDER: Final = "files/"
MAXIMUM_GOLDEN_SAMPLES: Final = 64
SUFFIX: Final = ".edgepack"

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_VERSION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_LIMIT_DB: Final = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """One file of a bundle, the manifest itself excepted.

    Attributes:
        path: relative POSIX path in the bundle, and on the device below the release's folder.
        sha256: hex digest of its data.
        num_bytes: size of its data.
    """

    path: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A file an inference engine can run.

    Attributes:
        engine: the engine it is for.
        file: its path in the bundle.
        arch: the architecture it was compiled for; None runs on all.
    """

    engine: EngineName
    file: str
    arch: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityRecord:
    """How near one output of the imported float model was to the source framework's.

    Attributes:
        output: name of the output.
        sqnr_db: over all samples, -300 to 300.
        max_abs_error: largest absolute difference.
        cosine: similarity of the two as vectors.
    """

    output: str
    sqnr_db: float
    max_abs_error: float
    cosine: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """The parity check of the import.

    Attributes:
        outputs: one entry for each output.
        num_samples: samples that were compared.
        generated: whether the samples were generated, not the user's own.
        minimum_db: the bound it was held to.
        reference: the framework that ran the source model, with its version.
    """

    outputs: tuple[ParityRecord, ...]
    num_samples: int
    generated: bool
    minimum_db: float
    reference: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where the packed model comes from.

    Attributes:
        source_name: file name of the source model.
        source_format: its format, such as `keras`.
        source_sha256: hex digest of the source model.
        converter: what made the float TFLite model of it.
        tool_version: EdgePack's own version.
        versions: name and version of each library that had a hand in it, sorted by name.
        calibration_digest: digest of the calibration data; None when there were none.
        calibration_num_samples: their number.
        evaluation_digest: digest of the data the fidelity was measured on.
    """

    source_name: str
    source_format: str
    source_sha256: str
    converter: str
    tool_version: str
    versions: tuple[tuple[str, str], ...] = ()
    calibration_digest: str | None = None
    calibration_num_samples: int = 0
    evaluation_digest: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleManifest:
    """What a bundle holds and how it came about.

    Attributes:
        name: what the release is called on devices.
        version: the user's, or the first 8 hex digits of the source's digest.
        target: the whole profile it was packed for, so that a device can be checked anywhere.
        recipe: what was done to the float model.
        signature: the packed model's inputs and outputs.
        fidelity: how near it is to the float model, on the evaluation data.
        parity: how near the float model is to the source; None when the source is TFLite.
        provenance: where the model comes from.
        artifacts: what engines can run.
        golden_num_samples: samples of golden inputs and outputs.
        files: every file but the manifest, sorted by path.
        class_names: path of the file of class names, one a line; None without one.
        format: version of this schema.
    """

    name: str
    version: str
    target: TargetProfile
    recipe: Recipe
    signature: Signature
    fidelity: Fidelity
    parity: Parity | None
    provenance: Provenance
    artifacts: tuple[Artifact, ...]
    golden_num_samples: int
    files: tuple[FileRecord, ...]
    class_names: str | None = None
    format: int = FORMAT


def default_name(source_name: str) -> str:
    """Give a bundle's name from its source's file name: the stem, odd characters as '-'."""
    stem = re.sub(r"\.(keras|h5|hdf5|onnx|tflite|pt2?|pth)$", "", source_name, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:64] or "model"


def check_identity(name: str, version: str) -> None:
    """Refuse a name or version that could not be a file or folder name everywhere.

    Raises:
        UsageError: characters other than letters, digits and '._-' ('+' too in versions), or a
            leading '.' or '-'.
    """
    faults = _identity_faults(name, version)
    if faults:
        raise UsageError(
            join_faults("the bundle's name", faults),
            remedy="Give another --name or --version; at most 64 characters.",
        )


def _identity_faults(name: str, version: str) -> list[str]:
    rule = "expected letters, digits and '._-', not starting with '.' or '-', but got"
    faults: list[str] = []
    if not _NAME.fullmatch(name):
        faults.append(f"name: {rule} {name!r}")
    if not _VERSION.fullmatch(version):
        faults.append(f"version: {rule} {version!r}")
    return faults


def bundle_file_name(name: str, version: str, target_id: str) -> str:
    """Give `NAME-VERSION-TARGET.edgepack`."""
    return f"{name}-{version}-{target_id}{SUFFIX}"


def encode_manifest(manifest: BundleManifest) -> bytes:
    """Write a manifest as its one canonical JSON text, UTF-8 with a final newline."""
    text = json.dumps(manifest_to_json(manifest), indent=1, sort_keys=True, allow_nan=False)
    return f"{text}\n".encode("ascii")


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


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a finite number")


def manifest_to_json(manifest: BundleManifest) -> dict[str, object]:
    """Give a manifest as JSON values."""
    parity, provenance = manifest.parity, manifest.provenance
    return {
        "artifacts": [
            {"arch": each.arch, "engine": each.engine.value, "file": each.file}
            for each in manifest.artifacts
        ],
        "class_names": manifest.class_names,
        "fidelity": fidelity_to_json(manifest.fidelity),
        "files": [
            {"num_bytes": each.num_bytes, "path": each.path, "sha256": each.sha256}
            for each in manifest.files
        ],
        "format": manifest.format,
        "golden": {"num_samples": manifest.golden_num_samples},
        "name": manifest.name,
        "parity": None
        if parity is None
        else {
            "generated": parity.generated,
            "minimum_db": parity.minimum_db,
            "num_samples": parity.num_samples,
            "outputs": [
                {
                    "cosine": each.cosine,
                    "max_abs_error": each.max_abs_error,
                    "output": each.output,
                    "sqnr_db": each.sqnr_db,
                }
                for each in parity.outputs
            ],
            "reference": parity.reference,
        },
        "provenance": {
            "calibration": {
                "digest": provenance.calibration_digest,
                "num_samples": provenance.calibration_num_samples,
            },
            "converter": provenance.converter,
            "evaluation_digest": provenance.evaluation_digest,
            "source": {
                "format": provenance.source_format,
                "name": provenance.source_name,
                "sha256": provenance.source_sha256,
            },
            "tool_version": provenance.tool_version,
            "versions": dict(provenance.versions),
        },
        "recipe": recipe_to_json(manifest.recipe),
        "signature": signature_to_json(manifest.signature),
        "target": {
            "id": manifest.target.id,
            "profile": profile_to_json(manifest.target),
            "profile_sha256": profile_digest(manifest.target),
        },
        "version": manifest.version,
    }


def _read_manifest(fields: Fields) -> BundleManifest:
    name, version = fields.text("name"), fields.text("version")
    fields.faults += _identity_faults(name, version)
    golden = fields.table("golden", required=True)
    manifest = BundleManifest(
        name=name,
        version=version,
        target=_read_target(fields.table("target", required=True)),
        recipe=read_recipe(fields.table("recipe", required=True)),
        signature=read_signature(fields.table("signature", required=True)),
        fidelity=read_fidelity(fields.table("fidelity", required=True)),
        parity=_read_parity(fields),
        provenance=_read_provenance(fields.table("provenance", required=True)),
        artifacts=tuple(_read_artifact(each) for each in fields.tables("artifacts")),
        golden_num_samples=golden.integer("num_samples", minimum=1, maximum=MAXIMUM_GOLDEN_SAMPLES),
        files=tuple(_read_record(each) for each in fields.tables("files")),
        class_names=fields.nullable_text("class_names"),
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
    )
    table.close()
    return parity


def _read_parity_record(fields: Fields) -> ParityRecord:
    record = ParityRecord(
        output=fields.text("output", empty=True),
        sqnr_db=fields.number("sqnr_db", minimum=-_LIMIT_DB, maximum=_LIMIT_DB),
        max_abs_error=fields.number("max_abs_error", minimum=0.0),
        cosine=fields.number("cosine", minimum=-1.0, maximum=1.0),
    )
    fields.close()
    return record


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
    )
    source.close()
    calibration.close()
    fields.close()
    return provenance


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


def _sha256(fields: Fields, key: str) -> str:
    digest = fields.text(key)
    if digest and not _SHA256.fullmatch(digest):
        fields.fault(key, f"expected 64 lowercase hex digits, not {digest[:70]!r}")
    return digest


def _check_files(fields: Fields, manifest: BundleManifest) -> None:
    """Note what does not hold between the file records and the rest."""
    paths = [record.path for record in manifest.files]
    fields.faults += path_faults([MANIFEST_PATH, *paths])
    if paths != sorted(paths):
        fields.fault("files", "expected them sorted by path")
    if not manifest.artifacts:
        fields.fault("artifacts", "expected at least one")
    named = [(f"artifacts[{i}].file", each.file) for i, each in enumerate(manifest.artifacts)]
    if manifest.class_names is not None:
        named.append(("class_names", manifest.class_names))
    for key, path in named:
        if path not in paths:
            fields.fault(key, f"expected the path of a listed file, not {path!r}")
    if fields.faults:
        return  # the signature may be nonsense, and then golden sizes are too
    sizes = {record.path: record.num_bytes for record in manifest.files}
    golden = golden_sizes(manifest.signature, manifest.golden_num_samples)
    for path, num_bytes in golden.items():
        if sizes.get(path) != num_bytes:
            came = f"{sizes[path]} bytes" if path in sizes else "none"
            fields.fault("files", f"expected {path!r} of {num_bytes} bytes, but got {came}")
    strays = [
        path
        for path in paths
        if path not in golden
        and not path.startswith(EXTRA_FOLDER)
        and path not in {each.file for each in manifest.artifacts}
    ]
    for path in strays:
        fields.fault("files", f"{path!r} is neither an artifact, golden, nor below {EXTRA_FOLDER}")


def golden_sizes(signature: Signature, num_samples: int) -> Mapping[str, int]:
    """Give the path and size in bytes of each golden file, in the order of `golden_paths`."""
    inputs, reference, host = golden_paths(signature)
    in_bytes = [spec.num_bytes * num_samples for spec in signature.inputs]
    out_bytes = [spec.num_bytes * num_samples for spec in signature.outputs]
    return dict(zip((*inputs, *reference, *host), (*in_bytes, *out_bytes, *out_bytes), strict=True))


def golden_paths(
    signature: Signature,
) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Give the paths of the golden inputs, float reference outputs and host outputs."""
    num_inputs, num_outputs = len(signature.inputs), len(signature.outputs)
    return (
        [f"{GOLDEN_FOLDER}input-{index:03}.bin" for index in range(num_inputs)],
        [f"{GOLDEN_FOLDER}reference-{index:03}.bin" for index in range(num_outputs)],
        [f"{GOLDEN_FOLDER}host-{index:03}.bin" for index in range(num_outputs)],
    )
