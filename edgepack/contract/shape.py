"""Shaping a model's inputs and outputs: a pass over the verified float flatbuffer.

At an input come CAST, ADD (or MUL and ADD, where the scale cannot move into the first
layer's weights) and TRANSPOSE; at an output TRANSPOSE and SOFTMAX, LOGISTIC or ARG_MAX. A
TRANSPOSE that meets one the model starts or ends with is merged with it. XNNPACK (LiteRT
2.3) takes all of them but CAST and ARG_MAX, which stand at the borders, so the model stays
in one piece. In an int8 model the quantizer puts a QUANTIZE behind the CAST, which loses
nothing of a byte: both take 24 µs for 224x224x3 on x86, one QUANTIZE of uint8 takes 126 µs.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.contract.fold import can_fold, find_first_layer, fold_multiplier
from edgepack.contract.plan import ContractPlan, InputPlan, OutputPlan, channel_axis
from edgepack.contract.preprocessing import Head, Preprocessing
from edgepack.errors import ContractError
from edgepack.flatbuffer import decode_name, read_flatbuffer, write_flatbuffer
from edgepack.graph import (
    Tree,
    drop_unused,
    make_op,
    name_of,
    new_constant,
    new_tensor,
    read_integers,
    readers,
    replace_interface,
    tensor_shape,
    writer,
)
from edgepack.model import Model, read_model

_FLOAT32: Final = 0  # TensorType of schema.fbs
_INT32: Final = 2
_UINT8: Final = 3

_Options = tuple[str, dict[str, Any]]
"""Class of an op's options, and their values."""


def shape_model(model: Model, plan: ContractPlan) -> Model:
    """Give a model the inputs and outputs that a plan says; names and order stay.

    The same model and plan give the same bytes. Prove the result with `prove_shape`.

    Args:
        model: float32, the one the plan was made for.
        plan: what is done at each input and output.

    Raises:
        ContractError: inputs or outputs that share a tensor cannot be told apart.
    """
    if plan.is_empty:
        return model
    tree = read_flatbuffer(model.data)
    graph = tree.subgraphs[0]
    inputs, outputs = [int(i) for i in graph.inputs], [int(i) for i in graph.outputs]
    for index, each in zip(inputs, plan.inputs, strict=True):
        if each.is_raw or each.permutation is not None:
            _shape_input(tree, index, each)
    for index, output in zip(outputs, plan.outputs, strict=True):
        if output.is_changed:
            _shape_output(tree, index, output)
    drop_unused(tree)
    shaped = read_model(write_flatbuffer(tree))
    _check_interface(shaped, plan)
    return shaped


def _check_interface(shaped: Model, plan: ContractPlan) -> None:
    """See that the shaped model has the inputs and outputs it was to have."""
    wanted = (
        tuple((each.spec.name, each.wanted_shape, each.dtype) for each in plan.inputs),
        tuple((each.spec.name, each.wanted_shape, each.wanted_dtype) for each in plan.outputs),
    )
    signature = shaped.signature
    came = tuple(
        tuple((spec.name, spec.shape, spec.dtype) for spec in specs)
        for specs in (signature.inputs, signature.outputs)
    )
    if came != wanted:
        raise ContractError(
            f"expected the shaped model to have the inputs {wanted[0]} and outputs {wanted[1]}, "
            f"but it has {came[0]} and {came[1]}",
            remedy="Leave the options for inputs and outputs out, or give the model a signature "
            "with distinct tensors.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chain:
    """Ops that are being added one after another.

    Attributes:
        tree: the model.
        name: of the input or output they are for; their tensors' names begin with it.
        ops: those made so far.
    """

    tree: Tree
    name: str
    ops: list[Any] = field(default_factory=list)

    def shape(self, index: int) -> tuple[int, ...]:
        """Give a tensor's dimensions."""
        return tensor_shape(self.tree.subgraphs[0].tensors[index])


def _shape_input(tree: Tree, index: int, plan: InputPlan) -> None:
    chain = _Chain(tree=tree, name=decode_name(tree.subgraphs[0].tensors[index].name))
    order, shape = plan.permutation, plan.wanted_shape
    raw = new_tensor(tree, f"{chain.name}_raw", shape, plan.dtype)
    last = raw
    if plan.dtype != plan.spec.dtype:
        options = ("CastOptions", {"inDataType": _UINT8, "outDataType": _FLOAT32})
        last = _append(chain, "CAST", [raw], "real", shape, options=options)
    if plan.preprocessing is not None:
        last = _append_preprocessing(chain, index, last, plan, plan.preprocessing)
    target = index
    if order is not None:
        # The graph turns the wanted layout back into its own.
        back = tuple(int(axis) for axis in np.argsort(order))
        target, back = _meet_following(tree, index, back)
        if back != tuple(range(len(back))):
            last = _append_transpose(chain, last, chain.shape(target), back)
    replace_interface(tree, "inputs", index, raw)
    _write_into(chain, last, target)
    tree.subgraphs[0].operators = [*chain.ops, *tree.subgraphs[0].operators]


def _append_preprocessing(
    chain: _Chain, index: int, last: int, plan: InputPlan, preprocessing: Preprocessing
) -> int:
    tree, rank, shape = chain.tree, len(plan.spec.shape), chain.shape(last)
    multiplier, offset = preprocessing.multiplier, preprocessing.offset
    layer = find_first_layer(tree, index, channel_axis=channel_axis(plan.layout, rank))
    if np.any(multiplier != 1.0) and layer is not None and can_fold(tree, layer, multiplier):
        fold_multiplier(tree, layer, multiplier)
        multiplier, offset = np.ones(1), offset / multiplier
    axis = channel_axis(plan.wanted_layout, rank)
    for op, values, neutral in (("MUL", multiplier, 1.0), ("ADD", offset, 0.0)):
        if np.any(values != neutral):
            constant = new_constant(
                tree, f"{chain.name}_{op.lower()}_by", _constant(values, rank, axis)
            )
            kind: _Options = (f"{op.capitalize()}Options", {})
            last = _append(chain, op, [last, constant], op.lower(), shape, options=kind)
    return last


def _constant(values: NDArray[np.float64], rank: int, axis: int) -> NDArray[np.float32]:
    """Give values along the channels' axis; equal ones as a single value."""
    shape = [1] * max(rank, 1)
    if np.all(values == values[0]):
        return np.full(shape, values[0], dtype=np.float32)
    shape[axis] = -1
    return values.astype(np.float32).reshape(shape)


def _meet_following(tree: Tree, index: int, order: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Merge a turn with the TRANSPOSE that alone reads a tensor, which is taken out.

    Gives the tensor that the turned values are, and the turn that is left.
    """
    graph = tree.subgraphs[0]
    reading = readers(tree, index)
    if len(reading) != 1 or name_of(tree, reading[0]) != "TRANSPOSE":
        return index, order
    next_order = read_integers(tree, int(reading[0].inputs[1]))
    if next_order is None or index in [int(i) for i in graph.outputs]:
        return index, order
    graph.operators = [each for each in graph.operators if each is not reading[0]]
    return int(reading[0].outputs[0]), tuple(order[axis] for axis in next_order)


def _shape_output(tree: Tree, index: int, plan: OutputPlan) -> None:
    graph = tree.subgraphs[0]
    chain = _Chain(tree=tree, name=decode_name(graph.tensors[index].name))
    rank, axis = len(plan.spec.shape), plan.class_axis
    same = tuple(range(rank))
    wanted = plan.permutation or same
    # `here[i]` is the axis of `last` that stands at position i of the output as it is.
    last, here = index, same
    before = writer(tree, index)
    turn = read_integers(tree, int(before.inputs[1])) if _is_transpose(tree, before) else None
    if turn is not None and (wanted != same or (plan.head is not None and axis != rank - 1)):
        last, here = int(before.inputs[0]), turn  # the model's own turn is taken back
    if plan.head is Head.ARGMAX:
        rest = [each for each in here if each != here[axis]]
        if rest != sorted(rest):  # what is left would stand in another order
            last, here = index, same
        last = _append_argmax(chain, last, here[axis])
    else:
        final = tuple(here[each] for each in wanted)
        if plan.head is not None:
            last, final = _append_head(chain, last, plan.head, here[axis], final)
        if final != same:
            shape = chain.shape(last)
            last = _append_transpose(chain, last, tuple(shape[each] for each in final), final)
    replace_interface(tree, "outputs", index, last)
    graph.operators = [*graph.operators, *chain.ops]
    if turn is not None and not readers(tree, index) and index != last:
        graph.operators = [each for each in graph.operators if each is not before]


def _is_transpose(tree: Tree, operator: Any) -> bool:  # noqa: ANN401 - see `Tree`
    return name_of(tree, operator) == "TRANSPOSE"


def _append_argmax(chain: _Chain, last: int, axis: int) -> int:
    constant = new_constant(chain.tree, f"{chain.name}_axis", np.array([axis], dtype=np.int32))
    # int32 holds any class, and every runtime and language reads it with ease.
    left = tuple(size for each, size in enumerate(chain.shape(last)) if each != axis)
    ids = new_tensor(chain.tree, f"{chain.name}_id", left, "int32")
    options: _Options = ("ArgMaxOptions", {"outputType": _INT32})
    chain.ops.append(make_op(chain.tree, "ARG_MAX", [last, constant], [ids], options=options))
    return ids


def _append_head(
    chain: _Chain, last: int, head: Head, axis: int, final: tuple[int, ...]
) -> tuple[int, tuple[int, ...]]:
    """Append SOFTMAX or LOGISTIC, and give what `final` is behind it.

    SOFTMAX works along the last axis, so that the classes are turned there before it.
    """
    shape = chain.shape(last)
    if head is Head.SIGMOID:
        return _append(chain, "LOGISTIC", [last], "sigmoid", shape), final
    rank = len(shape)
    if axis != rank - 1:
        order = (*(each for each in range(rank) if each != axis), axis)
        shape = tuple(shape[each] for each in order)
        last = _append_transpose(chain, last, shape, order)
        final = tuple(order.index(each) for each in final)
    options: _Options = ("SoftmaxOptions", {"beta": 1.0})
    return _append(chain, "SOFTMAX", [last], "softmax", shape, options=options), final


def _append_transpose(
    chain: _Chain, last: int, shape: tuple[int, ...], order: tuple[int, ...]
) -> int:
    constant = new_constant(chain.tree, f"{chain.name}_order", np.array(order, dtype=np.int32))
    options: _Options = ("TransposeOptions", {})
    return _append(chain, "TRANSPOSE", [last, constant], "turned", shape, options=options)


def _append(
    chain: _Chain,
    op: str,
    inputs: list[int],
    what: str,
    shape: tuple[int, ...],
    *,
    options: _Options | None = None,
) -> int:
    """Append an op with a float32 output of its own, and give that."""
    output = new_tensor(chain.tree, f"{chain.name}_{what}", shape, "float32")
    chain.ops.append(make_op(chain.tree, op, inputs, [output], options=options))
    return output


def _write_into(chain: _Chain, last: int, target: int) -> None:
    """Let the last value take a tensor's place."""
    if chain.ops:
        chain.ops[-1].outputs = [target]
        return
    graph = chain.tree.subgraphs[0]
    for operator in graph.operators:
        operator.inputs = [last if int(i) == target else int(i) for i in operator.inputs]
    graph.outputs = [last if int(i) == target else int(i) for i in graph.outputs]
