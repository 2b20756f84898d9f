"""A target's limits against what was measured."""

from fractions import Fraction

import numpy as np

from edgepack.measure.record import Measurement
from edgepack.measure.stats import quantile
from edgepack.profile import Limits

_P95 = Fraction(95, 100)


def exceeded_limits(
    limits: Limits, measurement: Measurement, *, bundle_bytes: int | None
) -> tuple[str, ...]:
    """Say which limits a measurement exceeds, with both figures; none when all are met.

    Args:
        limits: of the target; None is no limit.
        measurement: taken on the device.
        bundle_bytes: size of the bundle; None for a bare model.
    """
    samples = np.sort(np.concatenate([np.array(e.samples_ns) for e in measurement.launches]))
    peaks = [e.peak_memory_bytes for e in measurement.launches if e.peak_memory_bytes is not None]
    figures = (
        ("p95 latency", quantile(samples, _P95) / 1e6, limits.p95_ms, "ms"),
        (
            "peak memory",
            max(peaks) / 2**20 if peaks else None,
            limits.peak_memory_mib,
            "MiB",
        ),
        (
            "bundle size",
            bundle_bytes / 2**20 if bundle_bytes is not None else None,
            limits.bundle_mib,
            "MiB",
        ),
    )
    return tuple(
        f"{name} {figure:.4g} {unit} exceeds the target's limit of {limit:g} {unit}"
        for name, figure, limit, unit in figures
        if figure is not None and limit is not None and figure > limit
    )
