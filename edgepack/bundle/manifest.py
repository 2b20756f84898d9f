"""The manifest of a bundle: what was packed, for what, from what, and how good it is.

It holds no times, host names or latencies, so the same inputs give the same bytes. Its JSON
is canonical: one text stands for one manifest.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgepack._fields import join_faults
from edgepack.contract.record import IOContract, contract_to_json
from edgepack.errors import UsageError
from edgepack.fidelity import Fidelity, Judgement
from edgepack.fidelity import to_json as fidelity_to_json
from edgepack.model import Signature, signature_to_json
from edgepack.optimize.recipes.recipe import Recipe, recipe_to_json
from edgepack.profile import (
    EngineName,
    TargetProfile,
    profile_digest,
    profile_to_json,
)

FORMAT: Final = 3
MANIFEST_PATH: Final = "manifest.json"
SIGNATURE_PATH: Final = "manifest.json.sig"
MODEL_PATH: Final = "model.tflite"
RECIPE_PATH: Final = "recipe.toml"
GOLDEN_FOLDER: Final = "golden/"
EXTRA_FOLDER: Final = "files/"
MAXIMUM_GOLDEN_SAMPLES: Final = 64
MAXIMUM_BLOBS: Final = 256
SUFFIX: Final = ".edgepack"

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_VERSION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}")


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
class Blob:
    """A stretch of the model's file, by which devices know it again in another release.

    Attributes:
        offset: of its first byte in the file.
        num_bytes: its size.
        sha256: hex digest of it.
    """

    offset: int
    num_bytes: int
    sha256: str

    def __str__(self) -> str:
        """Give it as it stands in the manifest, where a device's shell finds it line by line."""
        return f"{self.offset} {self.num_bytes} {self.sha256}"


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
        judgement: by what it was found near enough.
        top1_agreement: share of rows with the same largest class; None for other outputs.
        equal_share: share of equal integers or truth values; None for floats.
        seed: of the generated samples these figures are of, the worst ones; None for others.
    """

    output: str
    sqnr_db: float
    max_abs_error: float
    cosine: float
    judgement: Judgement = Judgement.SQNR
    top1_agreement: float | None = None
    equal_share: float | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """The parity check of the import.

    Attributes:
        outputs: one entry for each output.
        num_samples: samples that were compared.
        generated: whether the samples were generated, not the user's own.
        minimum_db: the bound it was held to.
        reference: the framework that ran the source model, with its version.
        seeds: of the sets of generated samples, each held to the bound; empty for others.
    """

    outputs: tuple[ParityRecord, ...]
    num_samples: int
    generated: bool
    minimum_db: float
    reference: str
    seeds: tuple[int, ...] = ()


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
        attempts: the converters that were tried, and why each fell; None for the one that won.
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
    attempts: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleManifest:
    """What a bundle holds and how it came about.

    Attributes:
        name: what the release is called on devices.
        version: the user's, or the first 8 hex digits of the source's digest.
        target: the whole profile it was packed for, so that a device can be checked anywhere.
        recipe: what was done to the float model.
        signature: the packed model's inputs and outputs.
        contract: what its inputs want and its outputs mean.
        fidelity: how near it is to the float model, on the evaluation data.
        parity: how near the float model is to the source; None when the source is TFLite.
        provenance: where the model comes from.
        artifacts: what engines can run.
        golden_num_samples: samples of golden inputs and outputs.
        files: every file but the manifest, sorted by path.
        class_names: path of the file of class names, one a line; None without one.
        blobs: the model's file in stretches, one behind the other; none for small models.
        format: version of this schema.
    """

    name: str
    version: str
    target: TargetProfile
    recipe: Recipe
    signature: Signature
    contract: IOContract
    fidelity: Fidelity
    parity: Parity | None
    provenance: Provenance
    artifacts: tuple[Artifact, ...]
    golden_num_samples: int
    files: tuple[FileRecord, ...]
    class_names: str | None = None
    blobs: tuple[Blob, ...] = ()
    format: int = FORMAT


def default_name(source_name: str) -> str:
    """Give a bundle's name from its source's file name: the stem, odd characters as '-'."""
    # Code is named as FILE.py:function.
    source_name = source_name.replace(".py:", ":")
    stem = re.sub(
        r"\.(keras|h5|hdf5|onnx|pb|tflite|pt2?|pth|ts)$", "", source_name, flags=re.IGNORECASE
    )
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:64] or "model"


def check_identity(name: str, version: str) -> None:
    """Refuse a name or version that could not be a file or folder name everywhere.

    Raises:
        UsageError: characters other than letters, digits and '._-' ('+' too in versions), or a
            leading '.' or '-'.
    """
    faults = identity_faults(name, version)
    if faults:
        raise UsageError(
            join_faults("the bundle's name", faults),
            remedy="Give another --name or --version; at most 64 characters.",
        )


def identity_faults(name: str, version: str) -> list[str]:
    """Say what is wrong with a bundle's name and version."""
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


def manifest_to_json(manifest: BundleManifest) -> dict[str, object]:
    """Give a manifest as JSON values."""
    parity, provenance = manifest.parity, manifest.provenance
    return {
        "artifacts": [
            {"arch": each.arch, "engine": each.engine.value, "file": each.file}
            for each in manifest.artifacts
        ],
        **({"blobs": [str(each) for each in manifest.blobs]} if manifest.blobs else {}),
        "class_names": manifest.class_names,
        "contract": contract_to_json(manifest.contract, manifest.signature),
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
                    "equal_share": each.equal_share,
                    "judgement": each.judgement.value,
                    "max_abs_error": each.max_abs_error,
                    "output": each.output,
                    "seed": each.seed,
                    "sqnr_db": each.sqnr_db,
                    "top1_agreement": each.top1_agreement,
                }
                for each in parity.outputs
            ],
            "reference": parity.reference,
            "seeds": list(parity.seeds),
        },
        "provenance": {
            "attempts": [
                {"converter": converter, "fault": fault} for converter, fault in provenance.attempts
            ],
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
