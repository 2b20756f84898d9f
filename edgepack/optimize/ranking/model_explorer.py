"""A sensitivity analysis as node data for Model Explorer, the graph viewer of this ecosystem.

The format is that of `ModelNodeData.to_json_string` of ai-edge-model-explorer 0.1.34, whose
`node_data_builder.py` documents it: graph ids, and for each the results by the name of a tensor
that a node gives. Its adapter for .tflite (ai-edge-model-explorer-adapter 0.2.1) takes as a
graph's id the subgraph's name; the signature's key where it has none; else `main` (measured).
Its page shows each value at its op (measured): `model-explorer MODEL.tflite`, "Add per-node data".
Read into the dataclasses of that module and written again, this comes back as it is, with the
optional keys at their defaults beside it (0.1.34, measured).
"""

from collections.abc import Iterable
from typing import Any, Final

from edgepack.flatbuffer import decode_name, read_flatbuffer
from edgepack.optimize.ranking.layer_costs import LayerSensitivity, Precision, Sensitivity

_UNNAMED: Final = "main"
# From the worst to the best of the graph. The viewer wants stops for 0 and 1, in hexadecimal.
_GRADIENT: Final = (
    {"stop": 0.0, "bgColor": "#d7191c", "textColor": "#ffffff"},
    {"stop": 0.5, "bgColor": "#fdae61", "textColor": "#000000"},
    {"stop": 1.0, "bgColor": "#ffffff", "textColor": "#000000"},
)


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
    return {
        graph_id(data): {
            "name": f"SQNR of the output in dB, layer alone in {precision.value}",
            "results": {name: {"value": value} for name, value in worst.items()},
            "gradient": _shade(entries),
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


def _shade(entries: Iterable[LayerSensitivity]) -> list[dict[str, Any]]:
    """Give the gradient; none where all values are one, which has no lowest and highest."""
    is_flat = len({round(each.output_sqnr_db, 2) for each in entries}) < 2  # noqa: PLR2004 - two ends
    return [] if is_flat else [dict(each) for each in _GRADIENT]
