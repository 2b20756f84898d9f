"""Give a flatbuffer the names and the order of its source's inputs and outputs."""

from collections.abc import Sequence
from typing import Any

from edgepack.errors import ConversionError
from edgepack.flatbuffer import decode_name, read_flatbuffer, write_flatbuffer

_KEY = "serving_default"


def rename_interface(
    data: bytes,
    *,
    inputs: Sequence[tuple[str, str]],
    outputs: Sequence[tuple[str, str]],
) -> bytes:
    """Rewrite a flatbuffer's signature with the source's names, in the source's order.

    Args:
        data: a TFLite flatbuffer.
        inputs: (name in the flatbuffer, name in the source) in the source's order. The first
            is an argument of the signature, or a tensor's name where there is no signature.
        outputs: likewise.

    Raises:
        ConversionError: the flatbuffer lacks a tensor, or has one too many.
        ModelError: not a TFLite flatbuffer.
    """
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - 0.3 s to import

    tree = read_flatbuffer(data)
    graph = tree.subgraphs[0]
    old = next((each for each in tree.signatureDefs or () if each.subgraphIndex == 0), None)
    found_in = _positions(graph, graph.inputs, old.inputs if old is not None else None)
    found_out = _positions(graph, graph.outputs, old.outputs if old is not None else None)
    new = schema.SignatureDefT()
    new.signatureKey = _KEY
    new.subgraphIndex = 0
    new.inputs = _maps(schema, "input", inputs, found_in)
    new.outputs = _maps(schema, "output", outputs, found_out)
    graph.inputs = [each.tensorIndex for each in new.inputs]
    graph.outputs = [each.tensorIndex for each in new.outputs]
    tree.signatureDefs = [new]
    return write_flatbuffer(tree)


def _positions(graph: Any, indices: Sequence[int], maps: Any) -> dict[str, int]:  # noqa: ANN401 - the generated classes are untyped
    if maps:
        return {decode_name(each.name): int(each.tensorIndex) for each in maps}
    return {decode_name(graph.tensors[int(i)].name): int(i) for i in indices}


def _maps(
    schema: Any,  # noqa: ANN401 - the generated module is untyped
    side: str,
    names: Sequence[tuple[str, str]],
    found: dict[str, int],
) -> list[Any]:
    wanted = {name for name, _ in names}
    if wanted != set(found) or len(names) != len(found):
        raise ConversionError(
            f"expected the converted model to have the {side}s "
            f"{', '.join(sorted(wanted)) or 'none'}, but it has "
            f"{', '.join(sorted(found)) or 'none'}",
            remedy=f"Remove {side}s that no layer uses from the source model and export it again.",
        )
    maps: list[Any] = []
    for name, source_name in names:
        each = schema.TensorMapT()
        each.name = source_name
        each.tensorIndex = found[name]
        maps.append(each)
    return maps
