"""Fidelity as JSON values."""

from collections.abc import Mapping
from dataclasses import asdict

from edgepack._fields import Fields, describe, join_faults
from edgepack.comparison import LIMIT_DB
from edgepack.errors import DataError
from edgepack.fidelity.values import Fidelity, MetricFidelity, OutputFidelity


def to_json(fidelity: Fidelity) -> dict[str, object]:
    """Give a fidelity as JSON values; `parse_fidelity` is its inverse."""
    table: dict[str, object] = {"sqnr_db": fidelity.sqnr_db}
    table |= asdict(fidelity)
    table["outputs"] = [asdict(output) for output in fidelity.outputs]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}


def parse_fidelity(table: Mapping[str, object]) -> Fidelity:
    """Read a fidelity from JSON values.

    Raises:
        DataError: it breaks the schema; all faults are listed.
    """
    fields = Fields(table)
    fidelity = read_fidelity(fields)
    if fields.faults:
        raise DataError(
            join_faults("fidelity", fields.faults),
            remedy="The record was changed or written by another version; make it again.",
        )
    return fidelity


def read_fidelity(fields: Fields) -> Fidelity:
    """Read a fidelity from a table of a larger record, noting faults in `fields`."""
    fields.number("sqnr_db", minimum=-LIMIT_DB, maximum=LIMIT_DB)  # stands for readers; computed
    fidelity = Fidelity(
        outputs=tuple(_read_output(table) for table in fields.tables("outputs")),
        num_samples=fields.integer("num_samples", minimum=0),
        top1_agreement=_optional_share(fields, "top1_agreement"),
        top1_agreement_ci95=_optional_interval(fields, "top1_agreement_ci95"),
        accuracy=_optional_share(fields, "accuracy"),
        accuracy_ci95=_optional_interval(fields, "accuracy_ci95"),
        reference_accuracy=_optional_share(fields, "reference_accuracy"),
        drop_points=_optional(fields, "drop_points", -100.0, 100.0),
        drop_points_ci95=_optional_interval(fields, "drop_points_ci95"),
        metric=None if fields.raw("metric") is None else _read_metric(fields.table("metric")),
    )
    fields.close()
    return fidelity


def _read_metric(fields: Fields) -> MetricFidelity:
    metric = MetricFidelity(
        name=fields.text("name"),
        reference=fields.number("reference"),
        candidate=None if fields.raw("candidate") is None else fields.number("candidate"),
        drop_ci95=_optional_interval(fields, "drop_ci95"),
    )
    fields.close()
    return metric


def _read_output(fields: Fields) -> OutputFidelity:
    # JSON has no way to leave a key out of asdict(); null reads as absent.
    output = OutputFidelity(
        output=fields.text("output", empty=True),
        sqnr_db=fields.number("sqnr_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
        max_abs_error=fields.number("max_abs_error", minimum=0.0),
        cosine=fields.number("cosine", minimum=-1.0, maximum=1.0),
        sqnr_ci95_db=_optional_interval(fields, "sqnr_ci95_db"),
        worst_channel=_optional_count(fields, "worst_channel"),
        worst_channel_axis=_optional_count(fields, "worst_channel_axis"),
        worst_channel_sqnr_db=_optional(fields, "worst_channel_sqnr_db", -LIMIT_DB, LIMIT_DB),
        top1_agreement=_optional_share(fields, "top1_agreement"),
        top1_agreement_ci95=_optional_interval(fields, "top1_agreement_ci95"),
        num_non_finite=fields.integer("num_non_finite", 0, minimum=0),
        is_index=fields.boolean("is_index", default=False),
    )
    fields.close()
    return output


def _optional_count(fields: Fields, key: str) -> int | None:
    if fields.raw(key) is None:
        return None
    return fields.integer(key, minimum=0)


def _optional(fields: Fields, key: str, minimum: float, maximum: float) -> float | None:
    if fields.raw(key) is None:
        return None
    return fields.number(key, minimum=minimum, maximum=maximum)


def _optional_share(fields: Fields, key: str) -> float | None:
    return _optional(fields, key, 0.0, 1.0)


def _optional_interval(fields: Fields, key: str) -> tuple[float, float] | None:
    value = fields.raw(key)
    if value is None:
        return None
    match value:
        case [int() | float() as low, int() | float() as high] if low <= high:
            return (float(low), float(high))
    fields.fault(key, f"expected two numbers in order, not {describe(value)}")
    return None
