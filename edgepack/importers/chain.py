"""The chain of converters: the first whose model computes what its source computes wins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.cache import Cache
from edgepack.data import Samples
from edgepack.errors import ConversionError, EdgePackError, ParityError, ToolchainError
from edgepack.importers.binding import ImportedModel, input_hints
from edgepack.importers.convert import import_model, open_conversion
from edgepack.importers.departure import find_departure
from edgepack.importers.detection import detect_format
from edgepack.importers.parity import DifferenceError, ParityReport, check_parity
from edgepack.importers.source import CONVERTERS, Converter, ImportOptions
from edgepack.importers.trials import pick_trial
from edgepack.importers.worker import LOG_LABEL, SourceError
from edgepack.model import TensorSpec

# Samples on which intermediate outputs are compared: each of them is kept whole.
_MOST_SAMPLES: Final = 2

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
        SourceError: the source's own framework is not there or failed, so that no other
            converter is tried.
        DataError: the samples do not fit the source's inputs.
    """
    known = CONVERTERS[detect_format(path)]
    chosen: tuple[Converter | None, ...] = (options.converter,) if options.converter else known
    failures: list[_Failure] = []
    # A model that is converted already takes one turn without a converter.
    for converter in chosen or (None,):
        imported: ImportedModel | None = None
        samples: Samples | None = None
        try:
            imported = import_model(
                path, options=options, cache=cache, on_progress=on_progress, converter=converter
            )
            samples = read_samples(tuple(binding.source for binding in imported.inputs))
            parity = check_parity(
                imported,
                path,
                samples=samples,
                minimum_db=minimum_db,
                options=options,
                cache=cache,
                on_progress=on_progress,
            )
        except (ConversionError, ParityError, ToolchainError) as error:
            if converter is None:
                raise
            failures.append(
                _Failure(converter=converter, error=error, imported=imported, samples=samples)
            )
            if isinstance(error, SourceError):
                break
            on_progress(f"{converter.value} fell: {error.message.splitlines()[0]}")
            continue
        attempts = [
            Attempt(converter=each.converter, fault=each.error.message) for each in failures
        ]
        if converter is not None:
            attempts.append(Attempt(converter=converter, fault=None))
        return VerifiedImport(imported=imported, parity=parity, attempts=tuple(attempts))
    departure = _find_departure(
        path, failures, options=options, minimum_db=minimum_db, on_progress=on_progress
    )
    raise _conclude(path, failures, departure)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failure:
    converter: Converter
    error: EdgePackError
    imported: ImportedModel | None
    samples: Samples | None


def _find_departure(
    path: Path,
    failures: Sequence[_Failure],
    *,
    options: ImportOptions,
    minimum_db: float,
    on_progress: Callable[[str], None],
) -> str | None:
    """Say where the first converter that wrote a wrong model departs; None when none did."""
    for failure in failures:
        if failure.imported is None or not isinstance(failure.error, DifferenceError):
            continue
        conversion = open_conversion(
            path, options=options, on_progress=on_progress, converter=failure.converter
        )
        trial = pick_trial(
            tuple(binding.source for binding in failure.imported.inputs),
            input_hints(failure.imported),
            samples=failure.samples,
            seed=failure.error.seed,
            sample=failure.error.sample,
            most=_MOST_SAMPLES,
        )
        found = find_departure(
            conversion,
            failure.imported,
            trial=trial,
            minimum_db=minimum_db,
            on_progress=on_progress,
        )
        return f"{failure.converter.value}: {found.describe()}"
    return None


def _conclude(path: Path, failures: Sequence[_Failure], departure: str | None) -> EdgePackError:
    """Give the only failure, or one error that has the reason of each, with the departure."""
    ending = f"\n{departure}" if departure else ""
    if len(failures) == 1:
        (failure,) = failures
        return type(failure.error)(
            f"{failure.error.message}{ending}", remedy=_advise(path, failure)
        )
    reasons = "\n".join(f"  {each.converter.value}: {each.error.message}" for each in failures)
    is_wrong = any(isinstance(each.error, ParityError) for each in failures)
    parted = [(each.converter, *each.error.remedy.partition(LOG_LABEL)) for each in failures]
    remedies = [*dict.fromkeys(remedy for _, remedy, _, _ in parted if remedy)]
    logs = [f"{converter.value}: {log}" for converter, _, _, log in parted if log]
    if logs:
        remedies.append(f"Full logs: {', '.join(logs)}")
    return (ParityError if is_wrong else ConversionError)(
        f"{path}: expected one of {len(failures)} converters to give a model that computes what "
        f"its source computes, but none did\n{reasons}{ending}",
        remedy=" ".join(remedies),
    )


def _advise(path: Path, failure: _Failure) -> str:
    """Give what can be done about the only converter's failure: there may be others."""
    others = [each for each in CONVERTERS[detect_format(path)] if each is not failure.converter]
    if not others or isinstance(failure.error, SourceError):
        return failure.error.remedy
    names = ", ".join(each.value for each in others)
    advice = f"Without --converter {failure.converter.value}, {names} would be tried, too."
    return f"{advice} {failure.error.remedy}".rstrip()
