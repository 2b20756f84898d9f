"""The child of `sensitivity`: what each layer's rounding does. Argument: FOLDER.

FOLDER holds `model.tflite`, `feeds` and `request.json`: `probes`, the samples that outputs are
measured on; `jobs`, for layers by the position of their op, the precisions whose error is
measured there (`local`), at the model's outputs (`output`), and there without the shift of
the mean (`rest`, one of `local` too). It gets the answer: a record for each, and `num_macs`,
the multiplications that all runs of the layers took.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.comparison import LIMIT_DB, Sums, add_arrays, ratio_db
from edgepack.errors import OptimizeError
from edgepack.evaluate import Feeds
from edgepack.graph import read_constant
from edgepack.optimize.ranking.layer_costs import Precision
from edgepack.optimize.walking.emulation import round_affine, round_half, round_symmetric
from edgepack.optimize.walking.excerpt import Excerpt, ExcerptRunner, cut_excerpt
from edgepack.optimize.walking.layers import Layer, find_layers
from edgepack.optimize.walking.pass_process import PassJob, refuse_model, serve_pass
from edgepack.optimize.walking.walk import Samples, walk

_FLOAT32: Final = 0  # TensorType of schema.fbs
_ACTIVATION_BITS: Final = 8

Tensors = Mapping[int, NDArray[Any]]


@dataclass(kw_only=True, slots=True)
class _Error:
    """Running sums of a layer's error.

    Attributes:
        signal: squared values of the float layer's output.
        noise: squared errors.
        means: (num_channels,) sum of the errors.
        num_rows: positions that were added.
    """

    signal: float = 0.0
    noise: float = 0.0
    means: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))
    num_rows: int = 0

    def add(self, reference: NDArray[Any], difference: NDArray[Any]) -> None:
        """Add one sample; what is not finite counts as nothing."""
        finite = np.isfinite(reference) & np.isfinite(difference)
        ours = np.where(finite, reference, 0.0).astype(np.float64)
        theirs = np.where(finite, difference, 0.0).astype(np.float64)
        self.signal += float(np.sum(np.square(ours)))
        self.noise += float(np.sum(np.square(theirs)))
        rows = theirs.reshape(-1, theirs.shape[-1] if theirs.ndim else 1)
        self.means = self.means + rows.sum(axis=0)
        self.num_rows += len(rows)

    @property
    def shift(self) -> NDArray[np.float64]:
        """The mean error of each channel."""
        return self.means / max(self.num_rows, 1)

    @property
    def shift_share(self) -> float:
        """The share of the noise that its mean makes up."""
        energy = self.num_rows * float(np.sum(np.square(self.shift)))
        return min(1.0, energy / self.noise) if self.noise else 0.0


@dataclass(kw_only=True)
class _Prober:
    """The visitor: changes nothing in the walk, and runs on its own what a layer changes."""

    tree: Any
    jobs: Mapping[int, Mapping[str, Sequence[Precision]]]
    probes: Sequence[int]
    records: list[dict[str, Any]] = field(default_factory=list)
    num_macs: int = 0

    def __post_init__(self) -> None:
        """Note the layers, and which outputs are judged."""
        self._layers = {layer.output: layer for layer in find_layers(self.tree)}
        self._live: dict[int, Samples] = {}
        graph = self.tree.subgraphs[0]
        outputs = list(dict.fromkeys(int(i) for i in graph.outputs))
        # Class ids have no ratio of signal to noise.
        real = [i for i in outputs if graph.tensors[i].type == _FLOAT32]
        self._outputs = real or outputs
        self._answers: list[Tensors] = []

    def answer(self, feeds: Feeds) -> None:
        """Run the whole model on the probed samples, to compare with."""
        graph = self.tree.subgraphs[0]
        whole = cut_excerpt(self.tree, 0, len(graph.operators), outputs=self._outputs)
        names = [int(i) for i in graph.inputs]
        with ExcerptRunner(whole) as runner:
            self._answers = [
                runner.run(dict(zip(names, feeds[index], strict=True))) for index in self.probes
            ]
        self.num_macs += len(self.probes) * self._macs(0, len(graph.operators))

    def change(self, layer: Layer, reference: Samples, changed: Samples) -> None:
        """Leave each layer as it is."""

    def observe(self, tensor: int, reference: Samples, changed: Samples) -> None:
        """Judge the layer that gave a tensor, while what it and those behind it read is there."""
        del changed
        self._live[tensor] = reference
        layer = self._layers.get(tensor)
        # A layer whose input is a constant is none that anybody quantizes.
        if layer is None or layer.position not in self.jobs or layer.input not in self._live:
            return
        try:
            self._judge(layer, self.jobs[layer.position])
        # LiteRT 2.3 raises these for ops it cannot prepare or run.
        except (RuntimeError, ValueError) as error:
            raise OptimizeError(
                f"what follows layer {layer.name!r} cannot be run by itself: {error}",
                remedy="Choose a recipe that needs no sensitivity analysis.",
            ) from error

    def _judge(self, layer: Layer, job: Mapping[str, Sequence[Precision]]) -> None:
        records: dict[Precision, dict[str, Any]] = {}
        errors = {}
        for precision in job["local"]:
            errors[precision] = error = self._local_error(layer, precision)
            records[precision] = {
                "local_db": ratio_db(error.signal, error.noise),
                "noise": error.noise / error.signal if error.signal else 0.0,
                "shift_share": error.shift_share,
            }
        if job["output"]:
            stop = len(self.tree.subgraphs[0].operators)
            given = {i for each in self._operators(layer.position + 1) for i in each}
            outputs = [i for i in self._outputs if i in given]
            tail = cut_excerpt(self.tree, layer.position + 1, stop, outputs=outputs)
            # Behind the last layer there may be nothing.
            with ExcerptRunner(tail) if outputs else nullcontext() as runner:
                for precision in job["output"]:
                    whole, rest = self._output_error(
                        layer,
                        precision,
                        runner,
                        shift=errors[precision].shift if precision in job["rest"] else None,
                    )
                    record = records.setdefault(precision, {})
                    record["output_db"] = whole
                    if rest is not None:
                        record["rest_db"] = rest
        self.records += [
            {"position": layer.position, "precision": precision, **record}
            for precision, record in records.items()
        ]

    def _operators(self, start: int) -> list[list[int]]:
        return [[int(i) for i in each.outputs] for each in self.tree.subgraphs[0].operators[start:]]

    def _op(self, layer: Layer, precision: Precision) -> Excerpt:
        weights = read_constant(self.tree, layer.weights)
        assert weights is not None  # noqa: S101 - `find_layers` gives no other
        return cut_excerpt(
            self.tree,
            layer.position,
            layer.position + 1,
            outputs=[layer.output],
            constants={layer.weights: _round_weights(weights, layer, precision)},
        )

    def _differences(
        self, layer: Layer, precision: Precision, samples: Sequence[int]
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Give the float layer's output and its error for each of some samples."""
        excerpt = self._op(layer, precision)
        ranges = {}
        if precision is Precision.INT8:
            ranges = {i: _find_range(self._live[i]) for i in (layer.input, layer.output)}
        self.num_macs += len(samples) * layer.num_macs
        with ExcerptRunner(excerpt) as runner:
            for sample in samples:
                feeds = {i: self._live[i][sample] for i in excerpt.inputs}
                if ranges:
                    feeds[layer.input] = _round(feeds[layer.input], ranges[layer.input])
                came = runner.run(feeds)[layer.output]
                if ranges:
                    came = _round(came, ranges[layer.output])
                reference = self._live[layer.output][sample]
                yield reference, came - reference

    def _local_error(self, layer: Layer, precision: Precision) -> _Error:
        error = _Error()
        every = range(len(self._live[layer.output]))
        for reference, difference in self._differences(layer, precision, every):
            error.add(reference, difference)
        return error

    def _output_error(
        self,
        layer: Layer,
        precision: Precision,
        runner: ExcerptRunner | None,
        *,
        shift: NDArray[np.float64] | None,
    ) -> tuple[float, float | None]:
        """Give the worst output's SQNR in dB, and the one without the shift of the mean."""
        whole, rest = self._new_sums(), self._new_sums()
        pairs = self._differences(layer, precision, self.probes)
        for place, (reference, difference) in enumerate(pairs):
            self._add(whole, layer, place, reference + difference, runner)
            if shift is not None:
                corrected = reference + difference - shift.astype(np.float32)
                self._add(rest, layer, place, corrected, runner)
        return _worst_db(whole), None if shift is None else _worst_db(rest)

    def _new_sums(self) -> dict[int, Sums]:
        return {i: Sums(signal=np.zeros(1), noise=np.zeros(1)) for i in self._outputs}

    def _add(
        self,
        sums: Mapping[int, Sums],
        layer: Layer,
        place: int,
        changed: NDArray[Any],
        runner: ExcerptRunner | None,
    ) -> None:
        """Add what the outputs of a probed sample become when a layer gives something else."""
        came = {layer.output: changed}
        if runner is not None:
            sample = self.probes[place]
            kept = {i: self._live[i][sample] for i in runner.inputs if i != layer.output}
            came |= runner.run(kept | came)
            self.num_macs += self._macs(layer.position + 1, len(self.tree.subgraphs[0].operators))
        for index, each in sums.items():
            reference = self._answers[place][index]
            add_arrays(each, reference, came.get(index, reference))

    def _macs(self, start: int, stop: int) -> int:
        return sum(
            layer.num_macs for layer in self._layers.values() if start <= layer.position < stop
        )


def _round_weights(
    weights: NDArray[np.float32], layer: Layer, precision: Precision
) -> NDArray[np.float32]:
    if precision is Precision.FLOAT16:
        return round_half(weights)
    num_bits = 4 if precision is Precision.WEIGHT_ONLY_INT4 else 8
    return round_symmetric(weights, axis=layer.channel_axis, num_bits=num_bits)


def _find_range(samples: Samples) -> tuple[float, float]:
    return (
        min(0.0, *(float(np.min(array)) for array in samples)),
        max(0.0, *(float(np.max(array)) for array in samples)),
    )


def _round(array: NDArray[Any], ends: tuple[float, float]) -> NDArray[np.float32]:
    return round_affine(array, low=ends[0], high=ends[1], num_bits=_ACTIVATION_BITS)


def _worst_db(sums: Mapping[int, Sums]) -> float:
    return min(
        -LIMIT_DB if each.num_non_finite else ratio_db(float(each.signal[0]), float(each.noise[0]))
        for each in sums.values()
    )


def probe(job: PassJob) -> dict[str, Any]:
    """Measure what a request asks for, and give the answer for the parent."""
    tree, feeds = job.read_tree(), job.feeds()
    prober = _Prober(
        tree=tree,
        jobs={
            int(position): {key: [Precision(each) for each in wanted[key]] for key in wanted}
            for position, wanted in job.request["jobs"].items()
        },
        probes=job.request["probes"],
    )
    try:
        prober.answer(feeds)
        walk(tree, feeds, prober, folder=job.make_shelf("walk"))
    # LiteRT 2.3 raises these for a model it cannot read, prepare or run.
    except (RuntimeError, ValueError) as error:
        raise refuse_model(error) from error
    prober.num_macs += len(feeds) * sum(layer.num_macs for layer in find_layers(tree))
    return {"records": prober.records, "num_macs": prober.num_macs}


if __name__ == "__main__":
    serve_pass(probe)
