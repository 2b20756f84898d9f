"""The child of `edgepack.evaluate`: runs a model on feeds. Arguments: FOLDER NUM_THREADS [stream].

FOLDER holds `model.tflite` and `feeds`, the arrays of all samples one after another; it gets
`outputs`, likewise, and the answer.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgepack.child import read_arrays, write_answer, write_arrays


def run(folder: Path, num_threads: int, *, stream: bool) -> dict[str, Any]:
    """Run the model of a folder and give the answer for the parent."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - only this child needs it

    try:
        interpreter = Interpreter(model_path=str(folder / "model.tflite"), num_threads=num_threads)
        interpreter.allocate_tensors()
    # LiteRT 2.3 raises ValueError for an unreadable file and RuntimeError for an op it lacks.
    except (RuntimeError, ValueError) as error:
        return {"error": {"kind": "load", "message": str(error)}}
    try:
        write_arrays(folder / "outputs", _outputs(interpreter, folder / "feeds", stream=stream))
    except (RuntimeError, ValueError) as error:
        return {"error": {"kind": "invoke", "message": str(error)}}
    return {"ok": {}}


def _outputs(
    interpreter: Any,  # noqa: ANN401 - untyped library
    feeds: Path,
    *,
    stream: bool,
) -> Iterator[Any]:
    inputs = [detail["index"] for detail in interpreter.get_input_details()]
    outputs = [detail["index"] for detail in interpreter.get_output_details()]
    arrays = read_arrays(feeds)
    for first in arrays if inputs else ():
        interpreter.set_tensor(inputs[0], first)
        for index in inputs[1:]:
            interpreter.set_tensor(index, next(arrays))
        # Variable tensors start afresh with each sample unless the samples are a stream.
        # Resource variables cannot be reset: not by this call, nor by allocating anew; only a
        # new interpreter has their first values again (LiteRT 2.3).
        if not stream:
            interpreter.reset_all_variables()
        interpreter.invoke()
        for index in outputs:
            yield interpreter.get_tensor(index)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_answer(target, run(target, int(sys.argv[2]), stream="stream" in sys.argv[3:]))
