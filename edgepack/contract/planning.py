"""The user's wishes brought to one model: what fits it is planned, the rest refused."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeVar

from edgepack._fields import join_faults, nearest
from edgepack.contract.plan import SHARED, ContractPlan, InputPlan, OutputPlan, channel_axis
from edgepack.contract.preprocessing import Head, Preprocessing
from edgepack.contract.request import ContractRequest, InputWish, OutputWish
from edgepack.data import ImageLayout
from edgepack.errors import ContractError
from edgepack.flatbuffer import read_flatbuffer
from edgepack.graph import name_of, writer
from edgepack.importers.binding import ImportedModel, TensorBinding
from edgepack.importers.source import CONVERTERS, SourceFormat
from edgepack.model import TensorSpec

_IMAGE_CHANNELS: Final = frozenset({1, 3, 4})
_IMAGE_RANK: Final = 4
_GRAY_RANK: Final = 3
_SMALLEST: Final = 1e-9
# Formats whose frameworks put channels first.
_CHANNELS_FIRST: Final = frozenset(
    {SourceFormat.ONNX, SourceFormat.PYTORCH, SourceFormat.TORCHSCRIPT, SourceFormat.FUNCTION}
)
_DTYPES: Final = ("uint8", "float32")
# How converters turn images: not at all, channels to the end, or channels to the front.
_TURNS: Final = frozenset({None, (0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)})
_HEADS: Final = frozenset({"SOFTMAX", "LOG_SOFTMAX", "LOGISTIC"})
_CHOOSING: Final = frozenset({Head.SOFTMAX, Head.ARGMAX})

Wish = TypeVar("Wish", InputWish, OutputWish)


def plan_source(
    specs: tuple[TensorSpec, ...], source_format: SourceFormat, request: ContractRequest
) -> ContractPlan:
    """Bring what was asked to a source's own inputs, so that data for it can be read.

    Raises:
        ContractError: something does not fit the inputs; all faults are listed.
    """
    faults: list[str] = []
    bindings = tuple(TensorBinding(source=spec) for spec in specs)
    inputs = _plan_inputs(specs, bindings, source_format, request, faults)
    _raise(faults, "the model")
    return ContractPlan(inputs=inputs, outputs=())


def make_plan(imported: ImportedModel, request: ContractRequest) -> ContractPlan:
    """Bring what was asked to an imported model's inputs and outputs.

    Raises:
        ContractError: something does not fit the model; all faults are listed.
    """
    faults: list[str] = []
    signature, source_format = imported.model.signature, imported.source.format
    if not request.is_empty and imported.model.is_quantized:
        raise ContractError(
            f"{imported.source.file_name}: the model is quantized already, and its inputs and "
            "outputs are shaped in float only",
            remedy="Give the float model it was made from, or leave out --input-mean, --input-std, "
            "--input-scale, --input-dtype, --input-layout, --output-layout and --output.",
        )
    inputs = _plan_inputs(signature.inputs, imported.inputs, source_format, request, faults)
    # Frameworks give images out as they take them in.
    custom = next(
        (_source_layout(each) for each in inputs if each.layout is not None),
        _conventional_layout(source_format),
    )
    wished = _match(request.outputs, signature.outputs, "output", faults)
    writers = _writers(imported)
    outputs = tuple(
        _plan_output(
            spec,
            wished.get(i),
            _model_layout(custom, binding),
            source_format=source_format,
            writer=writers[i],
            faults=faults,
        )
        for i, (spec, binding) in enumerate(zip(signature.outputs, imported.outputs, strict=True))
    )
    if source_format in _CHANNELS_FIRST:
        faults += [fault for each in outputs if (fault := _class_axis_fault(each)) is not None]
    _raise(faults, imported.source.file_name)
    return ContractPlan(inputs=inputs, outputs=outputs)


def _raise(faults: list[str], title: str) -> None:
    if faults:
        raise ContractError(
            join_faults(title, faults),
            remedy="Change or leave out these options for inputs and outputs.",
        )


def _match(
    wishes: Sequence[Wish], specs: Sequence[TensorSpec], side: str, faults: list[str]
) -> dict[int, Wish]:
    """Give each wish by the position of what it is about."""
    names = [spec.name for spec in specs]
    found: dict[int, Wish] = {}
    for wish in wishes:
        if wish.name is None:
            if len(specs) == 1:
                found[0] = wish
            else:
                listed = ", ".join(repr(name) for name in names) or "none"
                faults.append(
                    f"the model has {len(specs)} {side}s ({listed}): write NAME=VALUE to say "
                    f"which {side} is meant"
                )
        elif wish.name in names:
            found[names.index(wish.name)] = wish
        else:
            faults.append(
                f"unknown {side} {wish.name!r}{nearest(wish.name, names)}; the model has "
                + (", ".join(repr(name) for name in names) or "none")
            )
    return found


def _plan_inputs(
    specs: tuple[TensorSpec, ...],
    bindings: tuple[TensorBinding, ...],
    source_format: SourceFormat,
    request: ContractRequest,
    faults: list[str],
) -> tuple[InputPlan, ...]:
    wished = _match(request.inputs, specs, "input", faults)
    return tuple(
        _plan_input(spec, binding, wished.get(i), source_format, faults)
        for i, (spec, binding) in enumerate(zip(specs, bindings, strict=True))
    )


def _plan_input(
    spec: TensorSpec,
    binding: TensorBinding,
    wish: InputWish | None,
    source_format: SourceFormat,
    faults: list[str],
) -> InputPlan:
    source_layout = _input_layout(binding.source.shape, source_format)
    layout = None if source_layout is None else _model_layout(source_layout, binding)
    axis = channel_axis(layout, len(spec.shape))
    wish = wish or InputWish(name=None)
    known = len(faults)
    preprocessing = _read_preprocessing(spec, wish, axis, faults)
    if layout is None and len(spec.shape) > 2 and source_format in _CHANNELS_FIRST:  # noqa: PLR2004 - N, C
        faults += [
            f"input {spec.name!r}: {option}: one value a channel needs an image of four "
            f"dimensions, as nothing tells which axis of {spec.shape} counts channels: "
            "give a single value"
            for option, values in (("--input-mean", wish.mean), ("--input-std", wish.std))
            if values is not None and len(values) > 1
        ]
    if source_layout is not None and layout is None and wish != InputWish(name=wish.name):
        faults.append(
            f"input {spec.name!r}: the converter turned the axes of {binding.source.shape} to "
            f"{binding.permutation}, which is no known layout of images: "
            + _way_around(source_format)
        )
    faults += _dtype_faults(spec, wish, layout)
    if wish.layout is not None and layout is None:
        faults.append(
            f"input {spec.name!r}: --input-layout {wish.layout} is about images of four "
            f"dimensions, but its shape is {spec.shape}"
        )
    permutation = binding.permutation
    return InputPlan(
        spec=spec,
        layout=layout,
        wanted_layout=(wish.layout or layout) if layout is not None else None,
        dtype=wish.dtype if wish.dtype is not None and len(faults) == known else spec.dtype,
        preprocessing=preprocessing,
        source_channel_axis=axis if permutation is None or not permutation else permutation[axis],
    )


def _read_preprocessing(
    spec: TensorSpec, wish: InputWish, axis: int, faults: list[str]
) -> Preprocessing | None:
    given = {
        "--input-mean": wish.mean,
        "--input-std": wish.std,
        "--input-scale": None if wish.scale is None else (wish.scale,),
    }
    named = [option for option, values in given.items() if values is not None]
    if not named:
        return None
    where = f"input {spec.name!r}"
    if not spec.dtype.startswith("float"):
        kind = "ids or counts" if spec.dtype.startswith(("int", "uint")) else "no real numbers"
        faults.append(f"{where}: {', '.join(named)}: it takes {spec.dtype}, which are {kind}")
        return None
    known = len(faults)
    if wish.scale is None:
        faults.append(
            f"{where}: {' and '.join(named)} without --input-scale could be meant for values from "
            "0 to 255 or from 0 to 1: give --input-scale 1 or --input-scale 1/255"
        )
    channels = spec.shape[axis] if spec.shape else 1
    for option, values in given.items():
        if values is None:
            continue
        if len(values) not in {1, channels}:
            faults.append(
                f"{where}: {option}: expected 1 or {channels} values, one a channel, but got "
                f"{len(values)}"
            )
        if option != "--input-mean" and 0.0 in values:
            faults.append(f"{where}: {option}: expected numbers other than 0")
        elif not all(_is_usable(value) for value in values):
            faults.append(f"{where}: {option}: expected numbers between 1e-9 and 1e9 in size")
    if len(faults) > known or wish.scale is None:
        return None
    return Preprocessing(scale=wish.scale, mean=wish.mean or (0.0,), std=wish.std or (1.0,))


def _is_usable(value: float) -> bool:
    """Tell whether products of such numbers stay within float32."""
    return value == 0.0 or (math.isfinite(value) and _SMALLEST <= abs(value) <= 1 / _SMALLEST)


def _dtype_faults(spec: TensorSpec, wish: InputWish, layout: ImageLayout | None) -> list[str]:
    where = f"input {spec.name!r}"
    if wish.dtype is None or wish.dtype == spec.dtype:
        return []
    if wish.dtype not in _DTYPES:
        return [f"{where}: --input-dtype: expected uint8 or float32, not {wish.dtype!r}"]
    if not spec.dtype.startswith("float"):
        return [f"{where}: --input-dtype {wish.dtype}: it takes {spec.dtype}, which stays"]
    if layout is None and len(spec.shape) != _GRAY_RANK:
        text = f"--input-dtype uint8 is for the pixels of images, but its shape is {spec.shape}"
        return [f"{where}: {text}"]
    return []


def _plan_output(
    spec: TensorSpec,
    wish: OutputWish | None,
    layout: ImageLayout | None,
    *,
    source_format: SourceFormat,
    writer: str,
    faults: list[str],
) -> OutputPlan:
    is_image = len(spec.shape) == _IMAGE_RANK
    wish = wish or OutputWish(name=None)
    plan = OutputPlan(
        spec=spec,
        layout=layout if is_image else None,
        wanted_layout=(wish.layout or layout) if is_image and layout is not None else None,
        head=wish.head,
        writer=writer,
    )
    where = f"output {spec.name!r}"
    if wish.layout is not None and not is_image:
        faults.append(
            f"{where}: --output-layout {wish.layout} is about images of four dimensions, but its "
            f"shape is {spec.shape}"
        )
    elif layout is None and (wish.layout is not None or wish.head in _CHOOSING):
        faults.append(
            f"{where}: the converter turned its axes in an order that is no known layout of "
            f"images: {_way_around(source_format)}"
        )
    elif wish.layout is not None and spec.dtype != "float32":
        faults.append(f"{where}: --output-layout turns float32 outputs only, not {spec.dtype}")
    fault = None if wish.head is None else _head_fault(plan, wish)
    if fault is not None:
        faults.append(f"{where}: --output {wish.head}: {fault}")
    if plan.is_changed and writer == SHARED:
        faults.append(f"{where}: its tensor is another output too, and cannot be changed alone")
    return plan


def _way_around(source_format: SourceFormat) -> str:
    """Say what the user can do about axes that the converter turned."""
    others = ", or try another --converter" if len(CONVERTERS[source_format]) > 1 else ""
    return f"do this in the source model{others}"


def _class_axis_fault(plan: OutputPlan) -> str | None:
    """Refuse a choice among classes where they may stand on the second axis or on the last."""
    rank = len(plan.spec.shape)
    if plan.head not in _CHOOSING or rank in {2, _IMAGE_RANK} or rank < 2:  # noqa: PLR2004 - N, C
        return None
    return (
        f"output {plan.spec.name!r}: --output {plan.head}: nothing tells which axis of "
        f"{plan.spec.shape} counts classes: append the layer in the source model, as in "
        "torch.softmax(y, dim=1)"
    )


def _head_fault(plan: OutputPlan, wish: OutputWish) -> str | None:
    shape, head = plan.spec.shape, plan.head
    if plan.spec.dtype != "float32":
        return f"the model gives {plan.spec.dtype}, not real numbers"
    if head is not Head.ARGMAX and plan.writer in _HEADS:
        return f"the model ends in {plan.writer} already"
    if head is Head.ARGMAX and wish.layout is not None:
        return "no channels are left to order; leave --output-layout out"
    # A batch and at least two classes.
    if head is not Head.SIGMOID and (len(shape) < 2 or shape[plan.class_axis] < 2):  # noqa: PLR2004
        return f"it chooses among classes, but the output's shape is {shape}"
    return None


def _input_layout(shape: tuple[int, ...], source_format: SourceFormat) -> ImageLayout | None:
    """Tell an image's order of axes by its number of channels, else by the format's custom."""
    if len(shape) != _IMAGE_RANK:
        return None
    first, last = shape[1] in _IMAGE_CHANNELS, shape[3] in _IMAGE_CHANNELS
    if first != last:
        return ImageLayout.NCHW if first else ImageLayout.NHWC
    return _conventional_layout(source_format)


def _conventional_layout(source_format: SourceFormat) -> ImageLayout:
    return ImageLayout.NCHW if source_format in _CHANNELS_FIRST else ImageLayout.NHWC


def _source_layout(plan: InputPlan) -> ImageLayout:
    return ImageLayout.NCHW if plan.source_channel_axis == 1 else ImageLayout.NHWC


def _model_layout(source: ImageLayout, binding: TensorBinding) -> ImageLayout | None:
    """Give the order that the source's order became in the converted model; None for another."""
    if binding.permutation is None or len(binding.permutation) != _IMAGE_RANK:
        return source
    if binding.permutation not in _TURNS:
        return None
    axis = binding.permutation.index(1 if source is ImageLayout.NCHW else _IMAGE_RANK - 1)
    return ImageLayout.NCHW if axis == 1 else ImageLayout.NHWC


def _writers(imported: ImportedModel) -> tuple[str, ...]:
    """Give the name of the op that gives each output, looking through what moves values only."""
    tree = read_flatbuffer(imported.model.data)
    counts = Counter(int(index) for index in tree.subgraphs[0].outputs)
    names: list[str] = []
    for index in tree.subgraphs[0].outputs:
        operator = writer(tree, int(index))
        while name_of(tree, operator) in {"TRANSPOSE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"}:
            operator = writer(tree, int(operator.inputs[0]))
        names.append(name_of(tree, operator) if counts[int(index)] == 1 else SHARED)
    return tuple(names)
