"""A source traced for fixed shapes, with its weights as constants: one graph to look into."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
)
from flat_source import Source  # type: ignore[import-not-found]
from lowering import (  # type: ignore[import-not-found]
    lower_pools,
    needs_lowering,
    widen,
)
from states import (  # type: ignore[import-not-found]
    State,
    expose_states,
    find_states,
)
from tensor_lists import settle_lists  # type: ignore[import-not-found]

# What passes ids on to the table they stand for. Keras 3.15 counts negative ones from the end:
# SelectV2(Less(ids, 0), AddV2(ids, rows), ids).
_PASSING = {
    "Identity": (0,), "Cast": (0,), "Reshape": (0,), "ExpandDims": (0,), "Squeeze": (0,),
    "Transpose": (0,), "SelectV2": (1, 2), "Pack": (0,), "StopGradient": (0,),
    "EnsureShape": (0,), "StridedSlice": (0,), "ConcatV2": (0, 1, 2, 3),
}  # fmt: skip
_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?|import|model)/")
_SUFFIX = re.compile(r"_\d+$")
# Their outputs are those of their inputs in another shape at most, or begin with a loop counter.
_UNSEEN = frozenset(
    {"Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "Shape", "Pack", "While", "If"}
)


@dataclass(frozen=True, kw_only=True)
class FrozenFunction:
    """A graph without variables between named tensors.

    Attributes:
        graph_def: nodes and functions.
        graph: the same, loaded: shapes and consumers.
        inputs: the input tensors in the source's order.
        outputs: likewise.
        states: variables it changes; the last inputs and outputs are theirs.
    """

    graph_def: Any
    graph: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    states: tuple[State, ...] = ()

    def call(self) -> Callable[..., list[Any]]:
        """Give the graph as a function of its inputs."""
        inputs = [each.name for each in self.inputs]
        outputs = [each.name for each in self.outputs]

        def call(*tensors: Any) -> list[Any]:  # noqa: ANN401 - TensorFlow is untyped
            results = tf.graph_util.import_graph_def(
                self.graph_def,
                input_map=dict(zip(inputs, tensors, strict=True)),
                return_elements=outputs,
                name="model",
            )
            return [tf.identity(each) for each in results]

        return call

    def output_specs(self) -> list[tuple[tuple[int, ...], tf.DType]]:
        """Give shape and dtype of each output.

        Where TensorFlow does not infer a shape (grouped convolutions, 2.21) the graph is run.
        """
        if all(each.shape.is_fully_defined() for each in self.outputs):
            return [(tuple(each.shape.as_list()), each.dtype) for each in self.outputs]
        function = tf.function(self.call())
        results = [
            [value.shape.as_list() for value in function(*self._filled(value))] for value in (0, 1)
        ]
        if results[0] != results[1]:
            raise RefusedError(
                "model",
                "expected outputs of fixed shapes, but one depends on the values of the inputs: "
                f"{results[0]} for zeros, {results[1]} for ones",
                "Export the model without what picks a varying number of values, such as "
                "tf.where or non-maximum suppression without padding.",
            )
        return [
            (tuple(shape), each.dtype) for shape, each in zip(results[0], self.outputs, strict=True)
        ]

    def _filled(self, value: int) -> list[Any]:
        return [tf.cast(tf.fill(each.shape, value), each.dtype) for each in self.inputs]


def trace(source: Source, shapes: Sequence[tuple[int, ...]]) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    """Trace a source for fixed shapes."""
    specs = [
        tf.TensorSpec(shape, dtype) for shape, dtype in zip(shapes, source.dtypes, strict=True)
    ]
    return tf.function(
        lambda *tensors: [tf.identity(value) for value in source.call(*tensors)],
        input_signature=specs,
    ).get_concrete_function()


def freeze(concrete: Any) -> FrozenFunction:  # noqa: ANN401 - TensorFlow is untyped
    """Make constants of a traced function's variables; those it changes become inputs.

    The converter (TensorFlow 2.21) leaves READ_VARIABLE ops in a Keras 3 model otherwise, and
    runtimes have no optimized kernels around them.
    """
    # The public convert_variables_to_constants_v2 takes no variables to leave alone.
    from tensorflow.python.framework import convert_to_constants  # noqa: PLC0415

    def inline(kept: Sequence[str]) -> Any:  # noqa: ANN401 - TensorFlow is untyped
        return convert_to_constants._FunctionConverterDataInEager(  # noqa: SLF001 - see above
            func=concrete,
            lower_control_flow=False,
            aggressive_inlining=False,
            variable_names_denylist=list(kept),
        )

    data = inline(())
    states = find_states(concrete, data.graph_def)
    if states:
        data = inline([state.placeholder for state in states])
    graph_def, _ = convert_to_constants._replace_variables_by_constants(data)  # noqa: SLF001
    expose_states(graph_def, states)
    captured = {id(inner) for _, inner in concrete.graph.captures}
    inputs = [each.name for each in concrete.inputs if id(each) not in captured]
    names = [*inputs, *(f"{state.placeholder}:0" for state in states)]
    outputs = [
        *(each.name for each in concrete.outputs),
        *(f"{state.assignment}:0" for state in states),
    ]
    frozen = load_graph(graph_def, inputs=names, outputs=outputs, states=states)
    settled = settle_lists(graph_def, frozen.graph, frozen.inputs)
    if settled is graph_def:
        return frozen
    return load_graph(settled, inputs=names, outputs=outputs, states=states)


def load_graph(
    graph_def: Any,  # noqa: ANN401 - TensorFlow is untyped
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    states: Sequence[State],
) -> FrozenFunction:
    """Give a GraphDef between named tensors."""
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    return FrozenFunction(
        graph_def=graph_def,
        graph=graph,
        inputs=tuple(graph.get_tensor_by_name(name) for name in inputs),
        outputs=tuple(graph.get_tensor_by_name(name) for name in outputs),
        states=tuple(states),
    )


def in_float32(frozen: FrozenFunction) -> FrozenFunction:
    """Give the same function computed in float32, of operations TFLite has."""
    if not needs_lowering(frozen.graph_def):
        return frozen
    wide = load_graph(
        widen(frozen.graph_def),
        inputs=[each.name for each in frozen.inputs],
        outputs=[each.name for each in frozen.outputs],
        states=frozen.states,
    )
    lower_pools(wide.graph_def, wide.graph)
    return wide


def exposing(frozen: FrozenFunction, names: Sequence[str]) -> FrozenFunction:
    """Give the function whose outputs are the tensors of these names."""
    return replace(frozen, outputs=tuple(frozen.graph.get_tensor_by_name(name) for name in names))


def list_nodes(frozen: FrozenFunction, layers: frozenset[str]) -> list[dict[str, str]]:
    """Give the nodes that depend on the inputs and compute numbers of known shape, in order."""
    reached = {each.op.name for each in frozen.inputs}
    nodes: list[dict[str, str]] = []
    for operation in frozen.graph.get_operations():
        if not any(each.op.name in reached for each in operation.inputs):
            continue
        reached.add(operation.name)
        for tensor in operation.outputs[:1]:
            is_number = tensor.dtype.is_floating or tensor.dtype.is_integer
            if operation.type in _UNSEEN or not is_number or not tensor.shape.is_fully_defined():
                continue
            title = title_of(operation.name, layers)
            nodes.append({"name": title, "op": operation.type, "output": tensor.name})
    return nodes


def state_names(frozen: FrozenFunction, layers: frozenset[str]) -> list[str]:
    """Give a name to each state: that of its layer, or of its variable, and a number."""
    stems = []
    for state in frozen.states:
        *scopes, _ = title_of(state.assignment, layers).split("/")
        stems.append(scopes[-1] if scopes else state.variable.name.split(":", maxsplit=1)[0])
    return [f"{stem}_state_{stems[:index].count(stem)}" for index, stem in enumerate(stems)]


def title_of(name: str, layers: frozenset[str]) -> str:
    """Give a node's name as the model's author knows it.

    Keras 3 opens a layer's scope twice, so that TensorFlow appends a number to it; the calls
    around a graph are no part of the model.
    """
    while (inner := _CALLS.sub("", name)) != name:
        name = inner
    parts = name.split("/")
    return "/".join(
        part if part in layers or _SUFFIX.sub("", part) not in layers else _SUFFIX.sub("", part)
        for part in parts
    )


def largest_index(tensor: Any) -> int | None:  # noqa: ANN401 - TensorFlow is untyped
    """Give the largest valid value of an input whose values are looked up in constant tables."""
    found: list[int] = []
    waiting = [tensor]
    seen: set[str] = set()
    while waiting:
        each = waiting.pop()
        if each.name in seen:
            continue
        seen.add(each.name)
        for consumer in each.consumers():
            places = [i for i, given in enumerate(consumer.inputs) if given is each]
            if consumer.type == "GatherV2" and places == [1]:
                rows = _num_rows(consumer)
                found.extend([] if rows is None else [rows - 1])
            elif consumer.type == "OneHot" and places == [0]:
                depth = tf.get_static_value(consumer.inputs[1])
                found.extend([] if depth is None else [int(depth) - 1])
            elif set(places) & set(_PASSING.get(consumer.type, ())):
                waiting.append(consumer.outputs[0])
    return min((each for each in found if each >= 0), default=None)


def _num_rows(gather: Any) -> int | None:  # noqa: ANN401 - TensorFlow is untyped
    table, _, axis = gather.inputs
    place = tf.get_static_value(axis)
    source = table.op
    while source.type == "Identity":
        source = source.inputs[0].op
    if source.type != "Const" or place is None or table.shape.rank is None:
        return None
    rows: int | None = table.shape.as_list()[int(place)]
    return rows
