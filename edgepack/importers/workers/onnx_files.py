"""Reading an ONNX file: bounded in size, its external data confined to its own folder.

Runs inside a toolchain on its own interpreter.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import onnx
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)

# Protobuf holds a message, and a flatbuffer its offsets, in signed 32-bit numbers.
MAXIMUM_BYTES = (2 << 30) - 1
_MOST_SHOWN = 10
_MOST_DIGITS = 20
SMALLER = "Split the model: a .tflite holds 2 GB at most, and its weights as float32."


def load(source: Path, *, trust: bool) -> onnx.ModelProto:
    """Read a model whole; its external data only from within its own folder.

    Raises:
        RefusedError: above 2 GB (found before anything large is read), no ONNX, or external
            data outside the folder or unreadable.
    """
    check_size(source, source.stat().st_size, "the file")
    # DecodeError is protobuf's; importing it would tie this script to one of its layouts.
    try:
        model = onnx.load(str(source), load_external_data=False)
    except Exception as error:
        if type(error).__name__ != "DecodeError":
            raise
        raise RefusedError(
            "model",
            f"{source.name}: expected an ONNX model, but parsing it failed: {first_line(error)}",
            "Copy or export the model again and compare its checksum.",
        ) from error
    if not model.graph.output:
        raise RefusedError(
            "model",
            f"{source.name}: expected an ONNX model with outputs, but its graph has none",
            "Export the model again with the outputs it is to have.",
        )
    check_locations(model)
    if not trust:
        confine_external_data(model, source.parent)
    num_bytes = source.stat().st_size + external_bytes(model, source.parent)
    check_size(source, num_bytes, "with its external data, the model")
    try:
        onnx.load_external_data_for_model(model, str(source.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise RefusedError(
            "model",
            f"{source.name}: its external data cannot be read: {first_line(error)}",
            "Put the data files beside the model, under the names it was exported with.",
        ) from error
    return model


def check_size(source: Path, num_bytes: int, what: str) -> None:
    """Refuse what neither an ONNX file nor a TFLite model can hold."""
    if num_bytes > MAXIMUM_BYTES:
        raise RefusedError(
            "model",
            f"{source.name}: expected less than 2 GB of weights, but {what} has "
            f"{num_bytes / 1e9:.1f} GB",
            SMALLER,
        )


def external_bytes(model: onnx.ModelProto, folder: Path) -> int:
    """Give how many bytes loading a model's external data takes, without reading any."""
    total = 0
    for tensor in all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        fields = {entry.key: entry.value for entry in tensor.external_data}
        if fields.get("length", "").isdecimal():
            # Python refuses to read thousands of digits; so many are too large already.
            total += int(fields["length"].lstrip("0")[:_MOST_DIGITS] or "0")
            continue
        path = folder / fields.get("location", "")
        if path.is_file():  # a missing one is refused where it is loaded
            total += path.stat().st_size
    return total


def check_locations(model: onnx.ModelProto) -> None:
    """Refuse external data whose place or size is no text: protobuf gives bytes there."""
    faults = [
        f"{tensor.name!r} in {entry.value!r}"
        for tensor in all_tensors(model)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if not isinstance(entry.value, str)
    ]
    if faults:
        raise RefusedError(
            "model",
            f"expected external data named in UTF-8, but {len(faults)} of the model's entries "
            f"are not: {', '.join(faults[:_MOST_SHOWN])}",
            "Export the model again, its data files under plain names.",
        )


def confine_external_data(model: onnx.ModelProto, folder: Path) -> None:
    """Refuse external data outside the model's folder: absolute paths, `..`, links out."""
    root = folder.resolve()
    faults: list[str] = []
    for tensor in all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        pure = PurePosixPath(location.replace("\\", "/"))
        outside = pure.is_absolute() or ".." in pure.parts or not location or "\0" in location
        if outside or not (root / pure).resolve().is_relative_to(root):
            faults.append(f"{tensor.name!r} in {location!r}")
    if faults:
        shown = ", ".join(sorted(set(faults))[:_MOST_SHOWN])
        raise RefusedError(
            "model",
            f"expected external data inside the model's folder {root}, "
            f"but {len(faults)} of its tensors lie outside: {shown}",
            "Move the data into the model's folder and export again, or pass --trust-model "
            "if you know where this model comes from.",
        )


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Give every tensor that may name a file: initializers and attributes, at any depth."""
    yield from graph_tensors(model.graph)
    for function in model.functions:
        yield from node_tensors(function.node)


def graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Give a graph's tensors, with those of its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from node_tensors(graph.node)


def node_tensors(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Give the tensors of nodes' attributes, with those of their subgraphs."""
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from graph_tensors(graph)
