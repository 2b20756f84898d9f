"""Figures of parity as they stand in the cache."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edgepack._fields import Fields, join_faults
from edgepack.comparison import LIMIT_DB
from edgepack.errors import DataError
from edgepack.fidelity import Judgement
from edgepack.importers.figures import OutputFigures
from edgepack.importers.slices import WorstSlice


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What a comparison found, before any limit is applied.

    Attributes:
        sets: seed, number of samples and every output's figures, for each set of samples.
        constancy: of each output, as `find_constant` says.
    """

    sets: tuple[tuple[int | None, int, tuple[OutputFigures, ...]], ...]
    constancy: tuple[Judgement | None, ...]


def write_figures(figures: Figures) -> bytes:
    """Give figures as JSON; `read_figures` reads it back."""
    record = {
        "sets": [
            {"seed": seed, "num_samples": count, "outputs": [asdict(each) for each in outputs]}
            for seed, count, outputs in figures.sets
        ],
        "constancy": [{"kind": kind} for kind in figures.constancy],
    }
    return json.dumps(record, indent=1).encode()


def read_figures(path: Path) -> Figures:
    """Read cached figures.

    Raises:
        DataError: the file was changed.
    """
    fields = Fields(json.loads(path.read_bytes()))
    figures = Figures(
        sets=tuple(
            (
                None if table.raw("seed") is None else table.integer("seed", minimum=0),
                table.integer("num_samples", minimum=0),
                tuple(_read_output(each) for each in table.tables("outputs")),
            )
            for table in fields.tables("sets")
        ),
        constancy=tuple(
            None if table.raw("kind") is None else table.choice("kind", Judgement)
            for table in fields.tables("constancy")
        ),
    )
    if fields.faults:
        raise DataError(
            join_faults(f"cached parity {path.parent}", fields.faults),
            remedy=f"Remove the folder {path.parent} and run the command again.",
        )
    return figures


def _read_output(fields: Fields) -> OutputFigures:
    worst_slice = None
    if fields.raw("worst_slice") is not None:
        table = fields.table("worst_slice")
        worst_slice = WorstSlice(
            axis=table.integer("axis", minimum=1),
            index=table.integer("index", minimum=0),
            sqnr_db=table.number("sqnr_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        )
    return OutputFigures(
        output=fields.text("output", empty=True),
        sqnr_db=fields.number("sqnr_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        max_abs_error=fields.number("max_abs_error", minimum=0.0),
        cosine=fields.number("cosine", minimum=-1.0, maximum=1.0),
        top1_agreement=_optional(fields, "top1_agreement", 0.0, 1.0),
        equal_share=_optional(fields, "equal_share", 0.0, 1.0),
        response_db=_optional(fields, "response_db", -LIMIT_DB, LIMIT_DB),
        scale=_optional(fields, "scale", 0.0, 1.0),
        worst_slice=worst_slice,
        num_non_finite=fields.integer("num_non_finite", minimum=0),
        is_finite=fields.boolean("is_finite"),
        worst_sample=fields.integer("worst_sample", minimum=0),
    )


def _optional(fields: Fields, key: str, minimum: float, maximum: float) -> float | None:
    if fields.raw(key) is None:
        return None
    return fields.number(key, minimum=minimum, maximum=maximum)
