"""The I/O contract of a bundle and the converters tried for it, as a report shows them."""

from typing import TYPE_CHECKING

from edgepack.contract.record import Place
from edgepack.report.summary import Fact

if TYPE_CHECKING:
    from edgepack.bundle.manifest import BundleManifest
    from edgepack.contract.preprocessing import Preprocessing
    from edgepack.contract.record import InputContract, OutputContract
    from edgepack.model import TensorSpec


def contract_facts(manifest: "BundleManifest") -> tuple[Fact, ...]:
    """Give one fact for each input and output: what it wants or means."""
    contract, signature = manifest.contract, manifest.signature
    inputs = [
        Fact(name=f"Input {spec.name}", value=_describe_input(each, spec))
        for each, spec in zip(contract.inputs, signature.inputs, strict=True)
    ]
    outputs = [
        Fact(name=f"Output {spec.name}", value=_describe_output(each, spec, manifest.class_names))
        for each, spec in zip(contract.outputs, signature.outputs, strict=True)
    ]
    return (*inputs, *outputs)


def attempt_facts(manifest: "BundleManifest") -> tuple[Fact, ...]:
    """Give one fact for each converter that fell before one was taken."""
    return tuple(
        Fact(name=f"Tried {converter}", value=fault)
        for converter, fault in manifest.provenance.attempts
        if fault is not None
    )


def _shape(spec: "TensorSpec") -> str:
    return f"{spec.dtype} {'x'.join(str(size) for size in spec.shape) or 'scalar'}"


def _describe_input(each: "InputContract", spec: "TensorSpec") -> str:
    kind = each.kind.value if each.layout is None else f"{each.kind.value} {each.layout.value}"
    parts = [_shape(spec), kind]
    if each.value_range is not None:
        parts.append(f"{each.value_range[0]:g} to {each.value_range[1]:g}")
    if each.preprocessing is not None:
        formula = describe_preprocessing(each.preprocessing)
        if each.place is Place.MODEL:
            parts.append("raw values" if formula is None else f"the model computes {formula}")
        elif formula is not None:
            parts.append(f"the caller computes {formula}")
    return ", ".join(parts)


def describe_preprocessing(done: "Preprocessing") -> str | None:
    """Give preprocessing as a formula of x; None when it changes nothing."""
    if done.scale == 1.0 and set(done.mean) == {0.0} and set(done.std) == {1.0}:
        return None
    text = "x" if done.scale == 1.0 else f"x * {done.scale:g}"
    if set(done.mean) != {0.0}:
        text = f"{text} - {_numbers(done.mean)}"
    if set(done.std) != {1.0}:
        text = f"({text}) / {_numbers(done.std)}"
    return text


def _numbers(values: tuple[float, ...]) -> str:
    text = ", ".join(f"{value:g}" for value in values)
    return text if len(values) == 1 else f"[{text}]"


def _describe_output(each: "OutputContract", spec: "TensorSpec", class_names: str | None) -> str:
    parts = [_shape(spec), each.meaning.value.replace("_", " ")]
    if each.layout is not None:
        parts.append(each.layout.value)
    if each.has_labels and class_names is not None:
        parts.append(f"classes named in {class_names}")
    return ", ".join(parts)
