"""The chain of converters: the first whose model computes what its source computes wins."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgepack.cache import Cache
from edgepack.data import Samples
from edgepack.errors import ConversionError, EdgePackError, ParityError, ToolchainError
from edgepack.importers.binding import ImportedModel
from edgepack.importers.convert import import_model
from edgepack.importers.detection import detect_format
from edgepack.importers.parity import ParityReport, check_parity
from edgepack.importers.source import CONVERTERS, Converter, ImportOptions
from edgepack.model import TensorSpec

ReadSamples = Callable[[tuple[TensorSpec, ...]], Samples | None]
"""Gives the samples for the source's inputs; None to generate some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """What became of one converter.

    Attributes:
        converter: which one.
        fault: why its model was not taken; None for the one that won.
    """

    converter: Converter
    fault: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifiedImport:
    """An imported model that was compared with its source.

    Attributes:
        imported: the model of the converter that won.
        parity: how near it is to the source.
        attempts: the converters that were tried, in order; empty for a `.tflite` source.
    """

    imported: ImportedModel
    parity: ParityReport
    attempts: tuple[Attempt, ...]


def import_verified(
    path: Path,
    *,
    options: ImportOptions,
    read_samples: ReadSamples,
    minimum_db: float,
    cache: Cache,
    on_progress: Callable[[str], None],
) -> VerifiedImport:
    """Import a model with the first converter whose result passes parity.

    Args:
        path: the source model, or `module:function`.
        options: what the user asks; `converter` leaves the others out.
        read_samples: called with the source's inputs once these are known.
        minimum_db: SQNR that every output must reach.
        cache: where results are kept.
        on_progress: called with one line at a time.

    Raises:
        ModelError: the source is unreadable, unsafe, of open shapes, or not supported.
        ConversionError, ParityError, ToolchainError: the only converter failed, in its own
            words; or all did, and the message has each one's reason.
        DataError: the samples do not fit the source's inputs.
    """
    known = CONVERTERS[detect_format(path)]
    chosen: tuple[Converter | None, ...] = (options.converter,) if options.converter else known
    failures: list[tuple[Converter, EdgePackError]] = []
    # A model that is converted already takes one turn without a converter.
    for converter in chosen or (None,):
        try:
            imported = import_model(
                path, options=options, cache=cache, on_progress=on_progress, converter=converter
            )
            parity = check_parity(
                imported,
                path,
                samples=read_samples(tuple(binding.source for binding in imported.inputs)),
                minimum_db=minimum_db,
                options=options,
                cache=cache,
                on_progress=on_progress,
            )
        except (ConversionError, ParityError, ToolchainError) as error:
            if converter is None:
                raise
            failures.append((converter, error))
            on_progress(f"{converter.value} fell: {error.message.splitlines()[0]}")
            continue
        attempts = [Attempt(converter=each, fault=error.message) for each, error in failures]
        if converter is not None:
            attempts.append(Attempt(converter=converter, fault=None))
        return VerifiedImport(imported=imported, parity=parity, attempts=tuple(attempts))
    raise _failure(path, failures)


def _failure(path: Path, failures: list[tuple[Converter, EdgePackError]]) -> EdgePackError:
    """Give the only failure itself, or one error that has the reason of each."""
    if len(failures) == 1:
        return failures[0][1]
    reasons = "\n".join(f"  {converter.value}: {error.message}" for converter, error in failures)
    is_wrong = any(isinstance(error, ParityError) for _, error in failures)
    remedies = dict.fromkeys(error.remedy for _, error in failures if error.remedy)
    return (ParityError if is_wrong else ConversionError)(
        f"{path}: expected one of {len(failures)} converters to give a model that computes what "
        f"its source computes, but none did\n{reasons}",
        remedy=" ".join(remedies),
    )
