"""The child of `activity`: sums up what a float model's tensors hold.

Argument: FOLDER, which holds `model.tflite`, `feeds` (the arrays of all samples, one after
another) and `request.json` (`groups`, for each sample the group it counts for, and `stream`); it
gets the answer: for each group the tensors' figures.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.flatbuffer import decode_name, dtype_name, read_flatbuffer
from edgepack.optimize.walking.pass_process import PassJob, refuse_model, serve_pass

# Of a larger array so many values are summed, of every channel alike; extremes always count.
_MOST_VALUES: Final = 65536


def sum_up(job: PassJob) -> dict[str, Any]:
    """Run a model on all samples and give each group's figures by tensor.

    Raises:
        OptimizeError: the runtime refuses the model.
    """
    # LiteRT 2.3 raises ValueError for an unreadable file and RuntimeError for an op it lacks.
    try:
        return _sum_up(job)
    except (RuntimeError, ValueError) as error:
        raise refuse_model(error) from error


def _sum_up(job: PassJob) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - only this child needs it

    request, data = job.request, job.data
    # LiteRT 2.3 keeps every tensor of a run when asked to, under XNNPACK too.
    interpreter = Interpreter(
        model_content=data, num_threads=1, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    inputs = [int(detail["index"]) for detail in interpreter.get_input_details()]
    names = _activations(data)
    groups: list[dict[int, list[float]]] = [{} for _ in range(max(request["groups"]) + 1)]
    for group, feed in zip(request["groups"], job.feeds(), strict=True):
        for index, array in zip(inputs, feed, strict=True):
            interpreter.set_tensor(index, array)
        if not request["stream"]:
            interpreter.reset_all_variables()
        interpreter.invoke()
        for index in names:
            try:
                values = interpreter.get_tensor(index)
            except ValueError:  # LiteRT 2.3 on a tensor that this run did not fill
                continue
            if values.size and np.isfinite(values).all():
                _add(groups[group].setdefault(index, [math.inf, -math.inf, 0.0, 0.0, 0.0]), values)
    return {
        "tensors": [names[index] for index in names],
        "groups": [[group.get(index) for index in names] for group in groups],
    }


def _activations(data: bytes) -> dict[int, str]:
    """Give index and name of the main graph's float32 inputs and of what its ops give."""
    tree = read_flatbuffer(data)
    graph = tree.subgraphs[0]
    indexes = [int(index) for index in graph.inputs]
    indexes += [int(index) for each in graph.operators or () for index in each.outputs]
    return {
        index: decode_name(graph.tensors[index].name)
        for index in dict.fromkeys(indexes)
        if index >= 0 and dtype_name(graph.tensors[index].type) == "float32"
    }


def _add(figures: list[float], values: NDArray[Any]) -> None:
    figures[0] = min(figures[0], float(values.min()))
    figures[1] = max(figures[1], float(values.max()))
    flat = values.reshape(-1)
    if flat.size > _MOST_VALUES:
        stride = -(-flat.size // _MOST_VALUES)
        while math.gcd(stride, values.shape[-1]) > 1:
            stride += 1
        flat = flat[::stride]
    figures[2] += float(flat.sum(dtype=np.float64))
    figures[3] += float(np.square(flat, dtype=np.float64).sum())
    figures[4] += flat.size


if __name__ == "__main__":
    serve_pass(sum_up)
