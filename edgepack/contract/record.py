"""The I/O contract of a packed model: what each input wants and each output means.

Names, shapes and element types are the signature's; the record adds what no flatbuffer
tells. It is part of a bundle's manifest.
"""

from dataclasses import dataclass
from enum import StrEnum

from edgepack._fields import Fields
from edgepack.contract.preprocessing import Preprocessing
from edgepack.data import ImageLayout
from edgepack.model import Signature, TensorSpec


class InputKind(StrEnum):
    """What an input's values are."""

    IMAGE = "image"
    IDS = "ids"
    STATE = "state"
    VALUES = "values"


class Meaning(StrEnum):
    """What an output's values are.

    `SCORES` are probabilities of their own each, `PROBABILITIES` add up to 1 along the
    classes, `CLASS_ID` is the number of the likeliest class.
    """

    VALUES = "values"
    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    SCORES = "scores"
    CLASS_ID = "class_id"


class Place(StrEnum):
    """Who preprocesses an input."""

    MODEL = "model"
    CALLER = "caller"


@dataclass(frozen=True, kw_only=True, slots=True)
class InputContract:
    """What one input wants.

    Attributes:
        name: of the input.
        kind: what its values are.
        layout: order of an image's axes; None for other inputs.
        value_range: least and largest value it is to be given; None when nobody said.
        preprocessing: how raw values become what the network was trained on; None when
            nobody said.
        place: who does that.
    """

    name: str
    kind: InputKind
    layout: ImageLayout | None = None
    value_range: tuple[float, float] | None = None
    preprocessing: Preprocessing | None = None
    place: Place = Place.CALLER


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputContract:
    """What one output means.

    Attributes:
        name: of the output.
        meaning: what its values are.
        layout: order of an image's axes; None for other outputs.
        class_axis: the axis that counts classes; None without one, and for class ids.
        has_labels: whether the bundle's class names are names of these classes.
    """

    name: str
    meaning: Meaning
    layout: ImageLayout | None = None
    class_axis: int | None = None
    has_labels: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class IOContract:
    """What a model's inputs want and its outputs mean, in the signature's order."""

    inputs: tuple[InputContract, ...]
    outputs: tuple[OutputContract, ...]


def plain_contract(signature: Signature) -> IOContract:
    """Give the contract of a model that nothing is known of but its signature."""
    return IOContract(
        inputs=tuple(
            InputContract(name=spec.name, kind=plain_kind(spec)) for spec in signature.inputs
        ),
        outputs=tuple(
            OutputContract(name=spec.name, meaning=Meaning.VALUES) for spec in signature.outputs
        ),
    )


def plain_kind(spec: TensorSpec) -> InputKind:
    """Tell what an input's values are by its element type alone."""
    is_integer = spec.dtype.startswith(("int", "uint")) and spec.quantization is None
    return InputKind.IDS if is_integer else InputKind.VALUES


def contract_to_json(contract: IOContract, signature: Signature) -> dict[str, object]:
    """Give a contract as JSON values, with each tensor's shape and element type."""
    return {
        "inputs": [
            _input_to_json(each, spec)
            for each, spec in zip(contract.inputs, signature.inputs, strict=True)
        ],
        "outputs": [
            _output_to_json(each, spec)
            for each, spec in zip(contract.outputs, signature.outputs, strict=True)
        ],
    }


def _input_to_json(each: InputContract, spec: TensorSpec) -> dict[str, object]:
    done = each.preprocessing
    return {
        "dtype": spec.dtype,
        "kind": each.kind.value,
        "layout": None if each.layout is None else each.layout.value,
        "name": each.name,
        "preprocessing": None
        if done is None
        else {
            "by": each.place.value,
            "mean": list(done.mean),
            "scale": done.scale,
            "std": list(done.std),
        },
        "range": None if each.value_range is None else list(each.value_range),
        "shape": list(spec.shape),
    }


def _output_to_json(each: OutputContract, spec: TensorSpec) -> dict[str, object]:
    return {
        "class_axis": each.class_axis,
        "dtype": spec.dtype,
        "has_labels": each.has_labels,
        "layout": None if each.layout is None else each.layout.value,
        "meaning": each.meaning.value,
        "name": each.name,
        "shape": list(spec.shape),
    }


def read_contract(fields: Fields, signature: Signature | None) -> IOContract:
    """Read a contract from a JSON object, noting faults in `fields`.

    Args:
        fields: the object.
        signature: what it must agree with; None compares nothing.
    """
    inputs, outputs = fields.tables("inputs"), fields.tables("outputs")
    contract = IOContract(
        inputs=tuple(_read_input(table) for table in inputs),
        outputs=tuple(_read_output(table) for table in outputs),
    )
    if signature is not None:
        _check_specs(fields, "inputs", inputs, signature.inputs)
        _check_specs(fields, "outputs", outputs, signature.outputs)
    fields.close()
    for table in (*inputs, *outputs):
        table.close()
    return contract


def _check_specs(
    fields: Fields, key: str, tables: tuple[Fields, ...], specs: tuple[TensorSpec, ...]
) -> None:
    """Note where a contract and the signature are not about the same tensors."""
    if len(tables) != len(specs):
        fields.fault(key, f"expected {len(specs)}, as in the signature, not {len(tables)}")
        return
    for table, spec in zip(tables, specs, strict=True):
        wanted = {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
        for each, value in wanted.items():
            if table.raw(each) != value:
                table.fault(each, f"expected {value!r}, as in the signature")
        done = table.raw("preprocessing")
        if isinstance(done, dict):
            for each in ("mean", "std"):
                values = done.get(each)
                count = len(values) if isinstance(values, list) else 1
                if count not in {1, *spec.shape}:
                    table.fault(
                        f"preprocessing.{each}", f"expected 1 number or one a channel, not {count}"
                    )
        axis = table.raw("class_axis")
        if type(axis) is int and axis >= len(spec.shape):
            table.fault("class_axis", f"expected an axis of the shape {spec.shape}, not {axis}")


def _read_layout(fields: Fields) -> ImageLayout | None:
    return None if fields.raw("layout") is None else fields.choice("layout", ImageLayout)


def _read_input(fields: Fields) -> InputContract:
    preprocessing, place = None, Place.CALLER
    if fields.raw("preprocessing") is not None:
        table = fields.table("preprocessing", required=True)
        place = table.choice("by", Place)
        preprocessing = _read_preprocessing(table)
    return InputContract(
        name=_read_tensor(fields),
        kind=fields.choice("kind", InputKind),
        layout=_read_layout(fields),
        value_range=_read_range(fields),
        preprocessing=preprocessing,
        place=place,
    )


def _read_tensor(fields: Fields) -> str:
    fields.text("dtype")
    fields.integers("shape", minimum=0)
    return fields.text("name", empty=True)


def _read_preprocessing(fields: Fields) -> Preprocessing:
    scale, mean, std = fields.number("scale"), fields.numbers("mean"), fields.numbers("std")
    for key, values in (("mean", mean), ("std", std)):
        if not values:
            fields.fault(key, "expected at least one number")
    if len(mean) > 1 and len(std) > 1 and len(mean) != len(std):
        fields.fault("std", f"expected {len(mean)} numbers, as in `mean`, not {len(std)}")
    if 0.0 in std:
        fields.fault("std", "expected numbers other than 0")
    if scale == 0.0:
        fields.fault("scale", "expected a number other than 0")
    fields.close()
    return Preprocessing(scale=scale, mean=mean, std=std)


def _read_range(fields: Fields) -> tuple[float, float] | None:
    if fields.raw("range") is None:
        return None
    values = fields.numbers("range")
    if len(values) != 2 or values[0] > values[1]:  # noqa: PLR2004 - least and largest
        fields.fault("range", "expected the least and the largest value")
        return None
    return values[0], values[1]


def _read_output(fields: Fields) -> OutputContract:
    has_axis = fields.raw("class_axis") is not None
    return OutputContract(
        name=_read_tensor(fields),
        meaning=fields.choice("meaning", Meaning),
        layout=_read_layout(fields),
        class_axis=fields.integer("class_axis", minimum=0) if has_axis else None,
        has_labels=fields.boolean("has_labels"),
    )
