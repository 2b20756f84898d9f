"""The child of `structured`: prunes channels. Argument: FOLDER.

FOLDER holds `model.tflite`, `request.json` and `feeds`, the arrays of all samples one after
another; it gets `pruned.tflite` and the answer.
"""

from typing import Any

from edgepack.flatbuffer import write_flatbuffer
from edgepack.graph import new_constant, read_constant
from edgepack.optimize.pruning.channels import map_channels
from edgepack.optimize.pruning.reconstruction import (
    InputMoments,
    Reconstruction,
    block_wide_readers,
    order_groups,
)
from edgepack.optimize.pruning.removal import remove_channels
from edgepack.optimize.pruning.selection import choose_channels
from edgepack.optimize.quantizing.refine_worker import add_biases
from edgepack.optimize.walking.layers import find_layers
from edgepack.optimize.walking.pass_process import PassJob, serve_pass
from edgepack.optimize.walking.walk import walk


def prune_channels(job: PassJob) -> dict[str, Any]:
    """Prune a model, write the result beside it and give the answer."""
    tree, feeds = job.read_tree(), job.feeds()
    add_biases(tree)
    part_biases(tree)
    channel_map = block_wide_readers(tree, map_channels(tree))
    layers = find_layers(tree)
    samples = job.make_shelf("samples")
    seen = InputMoments(tree, channel_map, folder=job.make_shelf("moments"), feeds=feeds)
    walk(tree, feeds, seen, folder=samples)
    orders = order_groups(tree, channel_map, seen)
    removed = choose_channels(orders, channel_map, layers, share=job.request["share"])
    if job.request["reconstruct"]:
        walk(
            tree,
            feeds,
            Reconstruction(tree, channel_map, removed, num_samples=len(feeds)),
            folder=samples,
        )
    remove_channels(tree, channel_map, removed)
    (job.folder / "pruned.tflite").write_bytes(write_flatbuffer(tree))
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


if __name__ == "__main__":
    serve_pass(prune_channels)
