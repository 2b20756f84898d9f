"""The child of `edgepack.optimize.structured`: prunes channels. Argument: FOLDER.

FOLDER holds `model.tflite`, `request.json` and `feeds`, the arrays of all samples one after
another; it gets `pruned.tflite` and the answer.
"""

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from edgepack.child import read_arrays, write_answer
from edgepack.errors import OptimizeError
from edgepack.evaluate import Feeds
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import new_constant, read_constant
from edgepack.optimize.channels import map_channels
from edgepack.optimize.layers import find_layers
from edgepack.optimize.reconstruction import InputMoments, Reconstruction, order_groups
from edgepack.optimize.refine_worker import add_biases
from edgepack.optimize.removal import remove_channels
from edgepack.optimize.selection import choose_channels
from edgepack.optimize.walk import walk


def prune_channels(folder: Path) -> dict[str, Any]:
    """Prune the model of a folder, write the result beside it and give the answer."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    data = (folder / "model.tflite").read_bytes()
    tree = read_flatbuffer(data)
    feeds = _read_feeds(folder / "feeds", len(tree.subgraphs[0].inputs))
    add_biases(tree)
    part_biases(tree)
    channel_map = map_channels(tree)
    layers = find_layers(tree)
    moments = folder / "moments"
    moments.mkdir()
    samples = folder / "samples"
    samples.mkdir()
    seen = InputMoments(tree, channel_map, folder=moments, feeds=feeds)
    walk(tree, feeds, seen, folder=samples)
    orders = order_groups(tree, channel_map, seen)
    removed = choose_channels(orders, channel_map, layers, share=request["share"])
    if request["reconstruct"]:
        walk(
            tree,
            feeds,
            Reconstruction(tree, channel_map, removed, num_samples=len(feeds)),
            folder=samples,
        )
    remove_channels(tree, channel_map, removed)
    (folder / "pruned.tflite").write_bytes(write_flatbuffer(tree))
    return {
        "num_macs_before": sum(layer.num_macs for layer in layers),
        "num_macs_after": sum(layer.num_macs for layer in find_layers(tree)),
        "groups": [
            {
                "name": group.name,
                "num_before": len(group.channels),
                "num_after": len(set(group.channels) - removed),
                "blocked": group.blocked,
            }
            for group in channel_map.groups
        ],
    }


def part_biases(tree: Any) -> None:  # noqa: ANN401 - the generated classes are untyped
    """Give layers that share a bias one each: converters share zeros, which then part."""
    taken: set[int] = set()
    for layer in find_layers(tree):
        if layer.bias is None:
            continue
        values = read_constant(tree, layer.bias)
        if layer.bias in taken and values is not None:
            operator = tree.subgraphs[0].operators[layer.position]
            own = new_constant(tree, f"{layer.name}_bias", values)
            operator.inputs = [own if int(i) == layer.bias else int(i) for i in operator.inputs]
        taken.add(layer.bias)


def _read_feeds(path: Path, num_inputs: int) -> Feeds:
    arrays = read_arrays(path)
    feeds = []
    while feed := tuple(islice(arrays, num_inputs)):
        feeds.append(feed)
    return feeds


if __name__ == "__main__":
    target = Path(sys.argv[1])
    try:
        answer = {"ok": prune_channels(target)}
    except OptimizeError as error:
        answer = {"error": {"message": error.message}}
    write_answer(target, answer)
