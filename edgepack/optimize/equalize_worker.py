"""The child of `edgepack.optimize.equalize`. Arguments: FOLDER NUM_SAMPLES.

FOLDER holds `model.tflite` and `feeds`, the arrays of all samples one after another; it gets
`equalized.tflite` and the answer.
"""

import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from edgepack.child import read_arrays, write_answer
from edgepack.errors import OptimizeError
from edgepack.flatbuffer import read_flatbuffer
from edgepack.optimize.equalize import equalize_tree


def equalize(folder: Path, num_samples: int) -> dict[str, object]:
    """Equalize the model of a folder and give the answer for the parent."""
    data = (folder / "model.tflite").read_bytes()
    tree = read_flatbuffer(data)
    arrays = read_arrays(folder / "feeds")
    num_inputs = len(tree.subgraphs[0].inputs)
    feeds = [tuple(islice(arrays, num_inputs)) for _ in range(num_samples)]
    shelf = folder / "shelf"
    shelf.mkdir()
    try:
        result, facts = equalize_tree(data, feeds, folder=shelf)
    except OptimizeError as error:
        return {"error": {"message": error.message, "remedy": error.remedy}}
    (folder / "equalized.tflite").write_bytes(result)
    return {"ok": asdict(facts)}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_answer(target, equalize(target, int(sys.argv[2])))
