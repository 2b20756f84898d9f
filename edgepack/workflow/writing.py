"""The bundle of what was packed: what goes into it, and its file."""

import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Final

from edgepack import __version__
from edgepack.bundle.archive import Bundle, write_bundle
from edgepack.bundle.golden import make_golden
from edgepack.bundle.manifest import Provenance, bundle_file_name, default_name
from edgepack.errors import DataError, OutputError
from edgepack.optimize.choosing.variant import Variant
from edgepack.workflow.material import Material
from edgepack.workflow.request import PackRequest

_MAXIMUM_FAULT: Final = 2000
_MAXIMUM_EXTRA_BYTES: Final = 64 * 2**20


def write_packed(
    request: PackRequest,
    material: Material,
    variant: Variant,
    extra_files: dict[str, bytes],
    sign: Callable[[bytes], bytes] | None,
) -> Bundle:
    """Write the bundle of a variant, with where it came from and its golden samples.

    Raises:
        OutputError: it cannot be written there; what was there stays.
    """
    source = material.imported.source
    name = request.name or default_name(source.file_name)
    version = request.version or source.sha256[:8]
    file_name = bundle_file_name(name, version, request.profile.id)
    path = request.output or Path(file_name)
    if path.is_dir():
        path = path / file_name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: the folder cannot be made: {error.strerror or error}",
            remedy="Give a path in a folder you may write to.",
        ) from error
    calibration = material.calibration if variant.recipe.needs_calibration else None
    return write_bundle(
        path,
        name=name,
        version=version,
        target=request.profile,
        recipe=variant.recipe,
        fidelity=variant.fidelity,
        parity=material.parity,
        provenance=Provenance(
            source_name=source.file_name,
            source_format=source.format.value,
            source_sha256=source.sha256,
            converter=source.converter,
            tool_version=__version__,
            versions=(*source.versions, *_own_versions()),
            calibration_digest=calibration.digest if calibration else None,
            calibration_num_samples=calibration.num_samples if calibration else 0,
            evaluation_digest=material.evaluation.digest,
            attempts=tuple(
                (each.converter.value, _without_folders(each.fault, request.model))
                for each in material.attempts
            ),
        ),
        model=variant.model,
        golden=make_golden(
            material.model,
            variant.model,
            material.evaluation_set.feeds,
            run=material.run,
        ),
        extra_files=extra_files,
        class_names=request.class_names.name if request.class_names else None,
        contract=material.contract,
        sign=sign,
    )


def _without_folders(fault: str | None, model: Path) -> str | None:
    """Give why a converter fell, without this machine's folders and no longer than a page."""
    if fault is None:
        return None
    folders = (model.parent, model.parent.resolve(), Path(tempfile.gettempdir()), Path.home())
    for folder in sorted({f"{each}/" for each in folders if each.is_absolute()}, key=len)[::-1]:
        fault = fault.replace(folder, "")
    return fault if len(fault) <= _MAXIMUM_FAULT else f"{fault[:_MAXIMUM_FAULT]}…"


def _own_versions() -> tuple[tuple[str, str], ...]:
    """Give the versions of what quantized the model and gave the host's answers."""
    return tuple(
        (f"host {name}", metadata.version(name)) for name in ("ai-edge-litert", "ai-edge-quantizer")
    )


def read_extra_files(request: PackRequest) -> dict[str, bytes]:
    """Read the files that the user adds to a bundle.

    Raises:
        DataError: one cannot be read, is too large, or has another's name.
    """
    paths = [*request.extra_files, *([request.class_names] if request.class_names else [])]
    files: dict[str, bytes] = {}
    for path in paths:
        if path.name in files:
            raise DataError(
                f"{path}: another file for the bundle has the name {path.name!r} too",
                remedy="Rename one of them.",
            )
        try:
            data = path.read_bytes() if path.stat().st_size <= _MAXIMUM_EXTRA_BYTES else None
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read: {error.strerror or error}",
                remedy="Check the path and its permissions.",
            ) from error
        if data is None:
            raise DataError(
                f"{path}: expected at most 64 MiB, but it is larger",
                remedy="Bring large files to the device by other means.",
            )
        files[path.name] = data
    return files
