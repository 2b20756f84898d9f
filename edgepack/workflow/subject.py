"""What is to be timed: a bundle or a bare model, told apart by content."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.bundle.archive import Bundle, open_bundle
from edgepack.bundle.manifest import SUFFIX
from edgepack.errors import ModelError
from edgepack.model import Model, load_model
from edgepack.profile import TargetProfile

_SOURCES: Final = frozenset({".keras", ".h5", ".hdf5", ".onnx"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is to be timed and what it is called."""

    name: str
    content: Bundle | Model

    @property
    def profile(self) -> TargetProfile | None:
        """The target of a bundle."""
        return self.content.manifest.target if isinstance(self.content, Bundle) else None

    @property
    def sha256(self) -> str:
        """Hex digest of the file."""
        content = self.content
        return content.file_sha256 if isinstance(content, Bundle) else content.sha256


def open_subject(path: Path) -> Subject:
    """Open what is to be timed, told apart by content.

    Raises:
        BundleError: a damaged bundle.
        ModelError: neither a bundle nor a usable TFLite model.
    """
    if path.suffix.lower() in _SOURCES:
        raise ModelError(
            f"{path}: expected a .tflite model or a bundle, but this is the format of a source "
            "model",
            remedy=f"Run `edgepack pack {path.name} --target NAME` first; `edgepack deploy` packs, "
            "pushes and measures in one.",
        )
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if path.suffix == SUFFIX or is_archive:
        bundle = open_bundle(path)
        return Subject(name=bundle.manifest.name, content=bundle)
    return Subject(name=path.name, content=load_model(path))
