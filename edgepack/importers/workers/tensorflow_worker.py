"""Convert Keras files, SavedModels and frozen graphs with the TFLite converter, or run them.

Runs inside the `tensorflow` toolchain on its own interpreter.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

# Appended, so that nothing here shadows a framework's module.
sys.path.append(str(Path(__file__).parent))
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    Request,
    first_line,
    serve,
)
from flat_source import (  # type: ignore[import-not-found]
    LOAD_ERRORS,
    MOST_SHOWN,
    Source,
    reason,
    settle_shapes,
)
from frozen_function import (  # type: ignore[import-not-found]
    FrozenFunction,
    exposing,
    freeze,
    in_float32,
    largest_index,
    list_nodes,
    state_names,
    title_of,
    trace,
)
from frozen_graphs import load_frozen_graph  # type: ignore[import-not-found]
from keras_files import load_keras  # type: ignore[import-not-found]
from lowering import is_narrow  # type: ignore[import-not-found]
from saved_models import load_saved_model  # type: ignore[import-not-found]
from states import changes_variables  # type: ignore[import-not-found]
from with_files import defined_objects, load_files  # type: ignore[import-not-found]

# Bfloat16 has 8 bits, so each operation alone leaves 48 dB, and a deep model far less.
_LEAST_AGREEMENT_DB = 20
_ROUNDING = 1e-3
# loc(callsite(fused["MaxPool3D:", "net/pool/MaxPool3D@__inference_7"] ...: 'tf.MaxPool3D' op is ...
_LACKING = re.compile(
    r"loc\((?:callsite\()?fused\[\"\w+:\", \"(?P<node>[^\"@]+)[^\n]*"
    r"'tf\.(?P<op>\w+)' op is neither"
)


def convert(request: Request) -> dict[str, Any]:
    """Write `model.tflite` in the work folder; describe the source's inputs and outputs."""
    source, shapes = load(request)
    folder = Path(request["folder"])
    frozen = freeze_source(request, source, shapes)
    try:
        wide = in_float32(frozen)
        outputs = wide.output_specs()
        converter = tf.lite.TFLiteConverter.from_saved_model(str(save(wide, folder / "frozen")))
        data = converter.convert()
    except Exception as error:
        # The converter's own error class stands in a private module.
        if type(error).__name__ == "ConverterError":
            raise unsupported(error, source.layers) from error
        if not isinstance(error, LOAD_ERRORS):
            raise
        raise untraceable(source, shapes, error) from error
    (folder / "model.tflite").write_bytes(data)
    states = state_names(frozen, source.layers)
    names = [*source.output_names, *(f"{name}_next" for name in states)]
    if request["expose"] is not None:
        names = request["expose"]
    return {
        "file": "model.tflite",
        "converter": "TFLiteConverter",
        "inputs": [
            describe(name, each)
            for (name, _, _), each in zip(source.inputs, frozen.inputs, strict=False)
        ]
        + [
            describe(name, each) | {"role": "state"}
            for name, each in zip(states, frozen.inputs[len(shapes) :], strict=True)
        ],
        "outputs": [
            {"name": name, "shape": list(shape), "dtype": dtype_of(each)}
            for name, (shape, _), each in zip(names, outputs, frozen.outputs, strict=True)
        ],
        # The converter sorts outputs as it likes.
        "model_inputs": [f"i{index}" for index in range(len(frozen.inputs))],
        "model_outputs": [f"o{index}" for index in range(len(outputs))],
        "notes": [*source.notes, *notes(frozen, states)],
    }


def notes(frozen: FrozenFunction, states: Sequence[str]) -> list[str]:
    """Say what was changed of the model before it was converted."""
    said = []
    if is_narrow(frozen.graph_def):
        said.append("the model computes in half precision: it was changed to float32")
    if states:
        said.append(
            "the model keeps variables: they became inputs and outputs, which the caller carries "
            f"over: {', '.join(states)}"
        )
    return said


def run(request: Request) -> dict[str, Any]:
    """Run the source on each sample of the inputs file; write the outputs beside it.

    A source that computes in half or bfloat16 is run in float32, as the converted model is,
    once its own answers have been found to agree as far as its precision goes.
    """
    source, shapes = load(request)
    folder = Path(request["folder"])
    concrete = trace_source(source, shapes)
    frozen = None
    graph_def = concrete.graph.as_graph_def()
    is_exposed, narrow = request["expose"] is not None, is_narrow(graph_def)
    if is_exposed or narrow or changes_variables(graph_def):
        frozen = freeze_source(request, source, shapes, concrete)
    dtypes = source.dtypes + [
        state.variable.dtype for state in (frozen.states if frozen is not None else ())
    ]
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        columns = [arrays[str(index)] for index in range(len(dtypes))]
    samples = [
        [tf.constant(a, t) for a, t in zip(sample, dtypes, strict=True)]
        for sample in zip(*columns, strict=True)
    ]
    try:
        if frozen is None:
            results = [to_arrays(concrete(*sample)) for sample in samples]
        elif is_exposed or narrow:
            wide = in_float32(frozen)
            function = tf.function(wide.call())
            kinds = [each.dtype for each in wide.inputs]
            results = [
                to_arrays(function(*(tf.cast(a, t) for a, t in zip(sample, kinds, strict=True))))
                for sample in samples
            ]
        else:
            results = [run_stateful(concrete, frozen, sample) for sample in samples]
        if narrow and frozen is not None and not is_exposed:
            own = [run_stateful(concrete, frozen, sample) for sample in samples]
            check_precision(source.output_names, own, results)
    except LOAD_ERRORS as error:
        raise RefusedError(
            "model",
            f"TensorFlow cannot run the model on the samples: {reason(error)}",
            "Give samples of the shapes and values the model was made for, with --data.",
        ) from error
    stacked = {
        str(index): np.stack([sample[index] for sample in results])
        for index in range(len(results[0]))
    }
    np.savez(folder / "outputs.npz", **stacked)  # type: ignore[arg-type] # numpy types it as bool
    return {"file": "outputs.npz", "reference": request["title"]}


def run_stateful(concrete: Any, frozen: FrozenFunction, sample: Sequence[Any]) -> list[Any]:  # noqa: ANN401 - TensorFlow is untyped
    """Run the source itself, its variables set before and read after."""
    num_inputs = len(sample) - len(frozen.states)
    for state, value in zip(frozen.states, sample[num_inputs:], strict=True):
        state.variable.assign(value)
    answers = to_arrays(concrete(*sample[:num_inputs]))
    return answers + to_arrays([state.variable.read_value() for state in frozen.states])


def to_arrays(values: Sequence[Any]) -> list[Any]:
    """Give tensors as arrays that a file can hold: NumPy's own format knows no bfloat16."""
    return [
        tf.cast(value, tf.float32).numpy() if value.dtype == tf.bfloat16 else value.numpy()
        for value in values
    ]


def check_precision(
    names: Sequence[str], own: Sequence[Sequence[Any]], wide: Sequence[Sequence[Any]]
) -> None:
    """Refuse a source whose own answers in low precision are far from those in float32."""
    faults: list[str] = []
    for index, name in enumerate(names):
        ours = np.stack([sample[index] for sample in own]).astype(np.float64)
        theirs = np.stack([sample[index] for sample in wide]).astype(np.float64)
        noise, signal = np.sum(np.square(ours - theirs)), np.sum(np.square(theirs))
        if not noise <= signal * 10 ** (-_LEAST_AGREEMENT_DB / 10) + ours.size * _ROUNDING**2:
            faults.append(f"{name} (largest difference {np.max(np.abs(ours - theirs)):.3g})")
    if faults:
        raise RefusedError(
            "model",
            "expected a model of half or bfloat16 to answer in float32 as it does itself, within "
            f"{_LEAST_AGREEMENT_DB} dB, but these outputs differ: {', '.join(faults)}",
            "Save the model with the dtype policy float32.",
        )


def nodes(request: Request) -> dict[str, Any]:
    """Give the nodes of the source's graph whose outputs can be looked at."""
    source, shapes = load(request)
    frozen = freeze_source(request, source, shapes)
    return {"nodes": list_nodes(frozen, source.layers)}


def load(request: Request) -> tuple[Source, list[tuple[int, ...]]]:
    """Load the source in the way its format asks for, and settle its inputs' shapes."""
    path, trust = Path(request["model"]), request["trust_model"]
    own = load_files(request["with_files"])
    match request["format"]:
        case "saved_model":
            source = load_saved_model(path, request["signature"], trust=trust)
        case "frozen_graph":
            source = load_frozen_graph(path, request["signature"], trust=trust)
        case _:
            source = load_keras(path, trust=trust, objects=defined_objects(own))
    return source, settle_shapes(source, request["input_shapes"])


def trace_source(source: Source, shapes: Sequence[tuple[int, ...]]) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    """Trace the source, or tell why it does not run on these shapes."""
    try:
        return trace(source, shapes)
    except LOAD_ERRORS as error:
        raise untraceable(source, shapes, error) from error


def freeze_source(
    request: Request,
    source: Source,
    shapes: Sequence[tuple[int, ...]],
    concrete: Any = None,  # noqa: ANN401 - TensorFlow is untyped
) -> FrozenFunction:
    """Freeze the source; with the tensors asked for as its outputs."""
    traced = trace_source(source, shapes) if concrete is None else concrete
    try:
        frozen = freeze(traced)
    except LOAD_ERRORS as error:
        raise untraceable(source, shapes, error) from error
    expose = request.get("expose")  # a request for the nodes asks for none
    return frozen if expose is None else exposing(frozen, expose)


def describe(name: str, tensor: Any) -> dict[str, Any]:  # noqa: ANN401 - TensorFlow is untyped
    """Describe an input as the answer has it."""
    described = {"name": name, "shape": tensor.shape.as_list(), "dtype": dtype_of(tensor)}
    maximum = largest_index(tensor)
    return described if maximum is None else described | {"maximum": maximum}


def dtype_of(tensor: Any) -> str:  # noqa: ANN401 - TensorFlow is untyped
    """Give an element type by NumPy's name: what is bfloat16 is handed over as float32."""
    return "float32" if tensor.dtype == tf.bfloat16 else str(tensor.dtype.name)


def save(frozen: FrozenFunction, folder: Path) -> Path:
    """Write a SavedModel with the inputs i0, i1 and the outputs o0, o1 and so on."""
    call = frozen.call()
    specs = [
        tf.TensorSpec(each.shape, each.dtype, name=f"i{index}")
        for index, each in enumerate(frozen.inputs)
    ]

    def named(*tensors: Any) -> dict[str, Any]:  # noqa: ANN401 - TensorFlow is untyped
        return {f"o{index}": value for index, value in enumerate(call(*tensors))}

    function = tf.function(named, input_signature=specs)
    # A swish has a gradient of its own, whose trace reads what the frozen graph no longer has:
    # saving it fails on every EfficientNet (2.21). Nothing here is trained.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    signatures = {"serving_default": function}
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures, options=options)
    return folder


def untraceable(
    source: Source, shapes: Sequence[tuple[int, ...]], error: Exception
) -> RefusedError:
    """Tell that the model does not even run on these shapes."""
    return RefusedError(
        "conversion",
        f"TensorFlow could not convert the model: {reason(error)}",
        "Check that the model runs on one sample of these shapes: "
        + "; ".join(
            f"{name} {shape}" for (name, _, _), shape in zip(source.inputs, shapes, strict=True)
        ),
    )


def unsupported(error: Exception, layers: frozenset[str]) -> RefusedError:
    """Name the ops TFLite lacks, and where they stand, out of the converter's long message."""
    text = str(error)
    found: dict[str, list[str]] = {}
    for each in _LACKING.finditer(text):
        found.setdefault(each["op"], []).append(title_of(each["node"], layers))
    for listed in re.findall(r"(?:TF Select|Custom) ops: (.+)", text):
        for op in listed.split(","):
            found.setdefault(op.strip(), [])
    if not found:
        return RefusedError(
            "conversion",
            f"TensorFlow's TFLite converter failed: {first_line(error)}",
            "Remove the layer named there, or export the model to ONNX and import that.",
        )
    parts = [
        f"tf.{op}" + (f" (in {', '.join(dict.fromkeys(places[:MOST_SHOWN]))})" if places else "")
        for op, places in sorted(found.items())
    ]
    return RefusedError(
        "conversion",
        f"TFLite has no kernel for {', '.join(parts)}",
        "Replace these operations in the source model by ones TFLite has, or move them before "
        "or after the model.",
    )


if __name__ == "__main__":
    serve({"convert": convert, "run": run, "nodes": nodes})
