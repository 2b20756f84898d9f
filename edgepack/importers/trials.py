"""Sets of inputs that source and converted model are compared on, each judged by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.data import InputHint, Range, Samples, generate_samples, make_samples
from edgepack.model import TensorSpec

_SEEDS: Final = ((20, Range.UNIT), (21, Range.WIDE), (22, Range.CENTERED))
_NUM_GENERATED: Final = 3
MOST_SAMPLES: Final = 16
"""So many of the user's samples are compared, evenly spread."""
_MOVING_SEED: Final = 23
# Two roundings of each type; sources in float64 are converted to float32.
_STEPS: Final = {"float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-23}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Samples that are compared together.

    Attributes:
        seed: what they were generated from; None for the user's.
        samples: in the source's names and layout.
    """

    seed: int | None
    samples: Samples

    @property
    def scale(self) -> float:
        """Largest magnitude of the float inputs, at most 1; 1 without any.

        Inputs in the hundreds or thousands (pixels, sound) lend no size to outputs: a score of
        1e-4 is one, whatever unit went in.
        """
        sizes = [
            float(np.max(np.abs(array)))
            for _, array in self.samples.arrays
            if array.dtype.kind == "f" and array.size
        ]
        return min(1.0, max(sizes, default=1.0) or 1.0)


def draw_trials(
    inputs: tuple[TensorSpec, ...], hints: Mapping[str, InputHint]
) -> tuple[Trial, ...]:
    """Generate one set of samples in each range, every one from its own seed."""
    return tuple(
        Trial(
            seed=seed,
            samples=generate_samples(
                inputs, num_samples=_NUM_GENERATED, seed=seed, hints=hints, value_range=value_range
            ),
        )
        for seed, value_range in _SEEDS
    )


def describe_left_out(seeds: Sequence[int]) -> str | None:
    """Say that some of the generated sets could not be compared; None when all were.

    Args:
        seeds: of the sets that were compared; empty for the user's samples.
    """
    if not seeds or len(seeds) == len(_SEEDS):
        return None
    return (
        f"parity was checked on {len(seeds)} of {len(_SEEDS)} sets of generated inputs: the "
        "source did not run on the others, gave no finite numbers, or too different ones when "
        "their last bits moved: give real data with --data"
    )


def pick_trial(
    inputs: tuple[TensorSpec, ...],
    hints: Mapping[str, InputHint],
    *,
    samples: Samples | None,
    seed: int | None,
    sample: int,
    most: int,
) -> Trial:
    """Give a few samples of the set that differed most: of the user's, or of a seed.

    Args:
        inputs: of the source.
        hints: what else it tells of them.
        samples: the user's; None for generated ones.
        seed: of the generated set.
        sample: place in the compared set of the one that differed most, which comes first.
        most: how many to give.
    """
    if samples is not None:
        trial = Trial(seed=None, samples=spread(samples, MOST_SAMPLES))
    else:
        trials = draw_trials(inputs, hints)
        trial = next((each for each in trials if each.seed == seed), trials[0])
    others = [place for place in range(trial.samples.num_samples) if place != sample]
    places = [sample, *others][:most]
    chosen = [(name, array[places]) for name, array in trial.samples.arrays]
    return Trial(seed=trial.seed, samples=make_samples(chosen))


def spread(samples: Samples, most: int) -> Samples:
    """Give at most so many of the samples, evenly spread."""
    if samples.num_samples <= most:
        return samples
    places = np.linspace(0, samples.num_samples - 1, most).astype(np.intp)
    return make_samples([(name, array[places]) for name, array in samples.arrays])


def join_trials(samples: Sequence[Samples]) -> Samples:
    """Give the samples of all sets one after another."""
    names = [name for name, _ in samples[0].arrays]
    columns = [dict(each.arrays) for each in samples]
    return make_samples(
        [(name, np.concatenate([column[name] for column in columns])) for name in names]
    )


def move_inputs(trial: Trial, most: int) -> Samples | None:
    """Give the first samples with each float moved by two roundings, up or down.

    What the source makes of them shows how far its own answer is decided by the last bits.

    Returns:
        None when there is no float input.
    """
    if all(array.dtype.kind != "f" for _, array in trial.samples.arrays):
        return None
    generator = np.random.default_rng(_MOVING_SEED)
    return make_samples(
        [(name, _move(array[:most], generator)) for name, array in trial.samples.arrays]
    )


def _move(array: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    step = _STEPS.get(str(array.dtype))
    if step is None:
        return array
    signs = generator.choice([-1.0, 1.0], array.shape)
    moved: NDArray[Any] = (array * (1.0 + 2.0 * step * signs)).astype(array.dtype)
    return moved
