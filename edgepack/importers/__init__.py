"""Turn a source model into a parity-checked float32 TFLite model, one worker a framework."""

from edgepack.importers.binding import ImportedModel, TensorBinding, model_feeds
from edgepack.importers.convert import import_model
from edgepack.importers.parity import OutputParity, ParityReport, check_parity
from edgepack.importers.source import (
    ImportOptions,
    SourceFormat,
    SourceInfo,
    detect_format,
    digest_source,
)

__all__ = [
    "ImportOptions",
    "ImportedModel",
    "OutputParity",
    "ParityReport",
    "SourceFormat",
    "SourceInfo",
    "TensorBinding",
    "check_parity",
    "detect_format",
    "digest_source",
    "import_model",
    "model_feeds",
]
