"""Turn a source model into a parity-checked float32 TFLite model, one worker a framework."""

from edgepack.importers.binding import ImportedModel, TensorBinding, model_feeds
from edgepack.importers.chain import Attempt, VerifiedImport, import_verified
from edgepack.importers.convert import import_model
from edgepack.importers.detection import detect_format
from edgepack.importers.judgement import OutputParity
from edgepack.importers.parity import ParityReport, check_parity
from edgepack.importers.source import (
    CONVERTERS,
    Converter,
    ImportOptions,
    SourceFormat,
    SourceInfo,
    digest_source,
)
from edgepack.importers.trials import describe_left_out

__all__ = [
    "CONVERTERS",
    "Attempt",
    "Converter",
    "ImportOptions",
    "ImportedModel",
    "OutputParity",
    "ParityReport",
    "SourceFormat",
    "SourceInfo",
    "TensorBinding",
    "VerifiedImport",
    "check_parity",
    "describe_left_out",
    "detect_format",
    "digest_source",
    "import_model",
    "import_verified",
    "model_feeds",
]
