"""Pruning of single weights that looks at the layers' inputs, in a child process.

Front to back, each layer's weights are chosen and changed so that its output, from what the
pruned layers before it give, stays that of the float model (`surgeon`, `walk`); then the mean of
each channel is the float model's again. Pruned are CONV_2D, FULLY_CONNECTED and TRANSPOSE_CONV;
depthwise convolutions keep their weights' number, and make up for the layers before them.

Measured on EfficientNet-Lite0, 72 other crops: see `benchmarks/sparse_pruning.py`.
"""

from typing import Final

from edgepack.errors import OptimizeError, RecipeError
from edgepack.evaluate import Feeds
from edgepack.flatbuffer import read_flatbuffer
from edgepack.model import Model, read_model
from edgepack.optimize.pruning.prune import PruneFacts, count_pruned
from edgepack.optimize.walking.layers import find_layers
from edgepack.optimize.walking.pass_process import run_pass, spread_feeds
from edgepack.optimize.walking.surgeon import PRUNED_OPS

_TIMEOUT_SECONDS: Final = 3600.0
_MAXIMUM_SAMPLES: Final = 48
_REMEDY: Final = "Prune by magnitude (--prune SHARE), or leave --prune out."


def prune_sparsegpt(
    model: Model, share: float, calibration: Feeds | None
) -> tuple[Model, PruneFacts]:
    """Set a share of each layer's weights to zero and let the others make up for them.

    Args:
        model: float32, without loops and without state between samples.
        share: of each layer's weights, 0 to below 1.
        calibration: real inputs; up to 48 of them, evenly chosen, are used.

    Raises:
        RecipeError: no calibration data.
        OptimizeError: nothing to prune, a model that cannot be walked, or the child failed.
    """
    if not calibration:
        raise RecipeError(
            "SparseGPT looks at each layer's inputs, but no calibration data was given",
            remedy="Give real inputs with --data, or prune by magnitude (--prune SHARE).",
        )
    if model.is_quantized:
        raise OptimizeError(
            "pruning needs a float32 model, but this one is quantized already",
            remedy="Give the float model it was made from, or leave --prune out.",
        )
    if model.traits.has_loop or model.is_stream:
        what = "a loop or branch" if model.traits.has_loop else "state between samples"
        raise OptimizeError(
            "SparseGPT looks at each layer's inputs one after the other, which a model with "
            f"{what} does not allow",
            remedy=_REMEDY,
        )
    layers = find_layers(read_flatbuffer(model.data))
    if not any(layer.op in PRUNED_OPS for layer in layers):
        raise OptimizeError(
            f"pruning needs constant weights of {', '.join(sorted(PRUNED_OPS))}, but the model "
            "has none",
            remedy="Leave --prune out.",
        )

    def explain(reason: str) -> OptimizeError:
        return OptimizeError(f"the weights could not be pruned: {reason}", remedy=_REMEDY)

    feeds = spread_feeds(calibration, _MAXIMUM_SAMPLES)
    with run_pass(
        "edgepack.optimize.pruning.sparsegpt_worker",
        model,
        feeds,
        {"share": share},
        explain=explain,
    ) as done:
        result = read_model((done.folder / "pruned.tflite").read_bytes())
    return result, count_pruned(model, result)
