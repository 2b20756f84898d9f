"""A sensitivity analysis as node data for Model Explorer, the graph viewer of this ecosystem.

The format is that of `ModelNodeData.to_json_string` of ai-edge-model-explorer 0.1.34, whose
`node_data_builder.py` documents it: graph ids, and for each the results by the name of a tensor
that a node gives. Its adapter for .tflite (ai-edge-model-explorer-adapter 0.2.1) takes as a
graph's id the subgraph's name; the signature's key where it has none; else `main` (measured).
Its page shows each value at its op (measured): `model-explorer MODEL.tflite`, "Add per-node data".
Read into the dataclasses of that module and written again, this comes back as it is, with the
optional keys at their defaults beside it (0.1.34, measured).
"""

from collections.abc import Mapping
from typing import Any, Final

from edgepack.flatbuffer import decode_name, read_flatbuffer
from edgepack.optimize.ranking.layer_costs import Precision, Sensitivity

_UNNAMED: Final = "main"
# From the worst to the best of the graph, as background and text. The viewer wants hexadecimal.
_COLORS: Final = (("#d7191c", "#ffffff"), ("#fdae61", "#000000"), ("#ffffff", "#000000"))


def make_node_data(data: bytes, sensitivity: Sensitivity, precision: Precision) -> dict[str, Any]:
    """Give each layer's SQNR at the model's outputs, in dB, as node data of one graph.

    Layers of one name have one value, the worst of them: the viewer tells them apart no more.

    Args:
        data: the flatbuffer that was analyzed, as the viewer is to open it.
        sensitivity: its analysis.
        precision: the one to show; the viewer shows one value a node.

    Raises:
        ModelError: the bytes are no flatbuffer.
    """
    entries = sensitivity.at(precision)
    worst: dict[str, float] = {}
    for each in entries:
        level_db = round(each.output_sqnr_db, 2)
        worst[each.layer] = min(worst.get(each.layer, level_db), level_db)
    return describe_nodes(
        graph_id(data),
        name=f"SQNR of the output in dB, layer alone in {precision.value}",
        values=worst,
        is_high_worst=False,
    )


def describe_nodes(
    graph: str, *, name: str, values: Mapping[str, float], is_high_worst: bool
) -> dict[str, Any]:
    """Give a value a node as node data of one graph.

    Args:
        graph: as `graph_id` gives it.
        name: what the values are, in words.
        values: by the name of the tensor that a node gives.
        is_high_worst: which end of the values is colored.
    """
    colors = _COLORS[::-1] if is_high_worst else _COLORS
    gradient = [
        # The viewer wants stops for 0 and 1.
        {"stop": place / (len(colors) - 1), "bgColor": background, "textColor": ink}
        for place, (background, ink) in enumerate(colors)
    ]
    # Where all values are one there is no lowest and highest.
    is_flat = len(set(values.values())) < 2  # noqa: PLR2004 - two ends
    return {
        graph: {
            "name": name,
            "results": {node: {"value": value} for node, value in values.items()},
            "gradient": [] if is_flat else gradient,
        }
    }


def graph_id(data: bytes) -> str:
    """Give what the viewer calls a model's main graph.

    Raises:
        ModelError: the bytes are no flatbuffer.
    """
    tree = read_flatbuffer(data)
    keys = (
        decode_name(each.signatureKey)
        for each in tree.signatureDefs or ()
        if each.subgraphIndex == 0
    )
    return decode_name(tree.subgraphs[0].name) or next(keys, "") or _UNNAMED
