"""Convert Keras files and SavedModels with TensorFlow's TFLite converter, or run them.

Runs inside the `tensorflow` toolchain on its own interpreter.
"""

import importlib
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
    fix_shapes,
    serve,
)

_TRUST = "pass --trust-model if you know where this model comes from"
_OWN_CODE = (
    "Give the Python that has this code with --toolchain-python PATH, and allow running it "
    "with --trust-model."
)
_MAXIMUM_CONFIG_BYTES = 256 * 2**20
_MOST_SHOWN = 10
# What loading and tracing raise on files that are not what they seem.
_LOAD_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, ImportError,
    RuntimeError, NotImplementedError, AssertionError, tf.errors.OpError,
)  # fmt: skip
_MISSING_CLASS = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown (?:layer|function|object)):? "
    r"'?(?P<name>[\w>.]+)"
)
_KERAS_ROOTS = ("keras", "tf_keras", "builtins", "tensorflow.keras")
# Ops that run Python, or reach files, other processes or the network.
_DANGEROUS_OP = re.compile(
    r"(?:Eager)?PyFunc(?:Stateless)?|\w*(?:ReadFile|WriteFile|FixedLengthRecord\w*|TFRecord\w*|"
    r"TextLine\w*|MatchingFiles\w*|WholeFileReader\w*|LMDB\w*|SqlDataset|Print\w*V2File|"
    r"FromTextFile\w*|AudioSummary\w*|Summary(?:File)?Writer\w*|WriteSummary|DebugIdentity\w*|"
    r"SaveDataset\w*|LoadDataset\w*|Snapshot\w*|RpcCall|TryRpc|Rpc|CaptureFunction|RemoteCall)"
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A loaded source model as one flat function.

    Attributes:
        call: takes the inputs in order, gives the outputs in order.
        inputs: name, shape and dtype of each input.
        output_names: one for each output.
        held: what must stay alive while `call` is used.
    """

    call: Callable[..., Sequence[Any]]
    inputs: list[tuple[str, tuple[int | None, ...], tf.DType]]
    output_names: list[str]
    held: Any


def convert(request: Request) -> dict[str, Any]:
    """Write `model.tflite` in the work folder; describe the source's inputs and outputs."""
    source = load(request)
    shapes = fix_shapes([(name, dims) for name, dims, _ in source.inputs], request["input_shapes"])
    specs = [
        tf.TensorSpec(shape, dtype, name=f"i{index}")
        for index, (shape, (_, _, dtype)) in enumerate(zip(shapes, source.inputs, strict=True))
    ]
    folder = Path(request["folder"])
    try:
        frozen, outputs = freeze(source, specs, folder / "frozen")
        converter = tf.lite.TFLiteConverter.from_saved_model(str(frozen))
        data = converter.convert()
    except Exception as error:
        # The converter's own error class stands in a private module.
        if type(error).__name__ == "ConverterError":
            raise unsupported(error) from error
        if not isinstance(error, _LOAD_ERRORS):
            raise
        raise RefusedError(
            "conversion",
            f"TensorFlow could not convert the model: {first_line(error)}",
            "Check that the model runs on one sample of these shapes: "
            + "; ".join(f"{name} {shape}" for (name, _, _), shape in zip(source.inputs, shapes)),  # noqa: B905 - equal by construction
        ) from error
    (folder / "model.tflite").write_bytes(data)
    return {
        "file": "model.tflite",
        "converter": "TFLiteConverter",
        "inputs": [
            {"name": name, "shape": list(shape), "dtype": dtype.name}
            for (name, _, dtype), shape in zip(source.inputs, shapes, strict=True)
        ],
        "outputs": [
            {"name": name, "shape": spec.shape.as_list(), "dtype": spec.dtype.name}
            for name, spec in zip(source.output_names, outputs, strict=True)
        ],
    }


def run(request: Request) -> dict[str, Any]:
    """Run the source on each sample of the inputs file; write the outputs beside it."""
    source = load(request)
    folder = Path(request["folder"])
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        columns = [arrays[str(index)] for index in range(len(source.inputs))]
    dtypes = [dtype for _, _, dtype in source.inputs]
    function = tf.function(source.call)
    results: list[list[Any]] = []
    try:
        for sample in zip(*columns, strict=True):
            tensors = [tf.constant(a, t) for a, t in zip(sample, dtypes, strict=True)]
            results.append([value.numpy() for value in function(*tensors)])
    except _LOAD_ERRORS as error:
        raise RefusedError(
            "model",
            f"TensorFlow cannot run the model on the samples: {first_line(error)}",
            "Give samples of the shapes and values the model was made for, with --data.",
        ) from error
    stacked = {
        str(index): np.stack([sample[index] for sample in results])
        for index in range(len(source.output_names))
    }
    np.savez(folder / "outputs.npz", **stacked)  # type: ignore[arg-type] # numpy types it as bool
    return {"file": "outputs.npz", "reference": request["title"]}


def freeze(source: Source, specs: list[Any], folder: Path) -> tuple[Path, list[Any]]:
    """Write the function as a SavedModel without variables; give its folder and output specs.

    The converter (TensorFlow 2.21) leaves READ_VARIABLE ops in a Keras 3 model otherwise, and
    runtimes have no optimized kernels around them.
    """
    from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415
        convert_variables_to_constants_v2,
    )

    concrete = tf.function(
        lambda *tensors: [tf.identity(value) for value in source.call(*tensors)],
        input_signature=specs,
    ).get_concrete_function()
    constant = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    outputs = list(constant.outputs)

    def named(*tensors: Any) -> dict[str, Any]:  # noqa: ANN401 - TensorFlow is untyped
        values = tf.nest.flatten(constant(*tensors))
        return {f"o{index}": value for index, value in enumerate(values)}

    function = tf.function(named, input_signature=specs)
    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": function})
    return folder, outputs


def unsupported(error: Exception) -> RefusedError:
    """Name the ops TFLite lacks out of the converter's long message."""
    text = str(error)
    ops = sorted(set(re.findall(r"'(tf\.\w+)' op is neither", text)))
    for listed in re.findall(r"(?:TF Select|Custom) ops: (.+)", text):
        ops.extend(f"tf.{op.strip()}" for op in listed.split(","))
    if not ops:
        return RefusedError(
            "conversion",
            f"TensorFlow's TFLite converter failed: {first_line(error)}",
            "Remove the layer named there, or export the model to ONNX and import that.",
        )
    return RefusedError(
        "conversion",
        f"TFLite has no kernel for {', '.join(sorted(set(ops)))}",
        "Replace these operations in the source model by ones TFLite has, or move them before "
        "or after the model.",
    )


def load(request: Request) -> Source:
    """Load the source model in the way its format asks for."""
    path = Path(request["model"])
    if request["format"] == "saved_model":
        return load_saved_model(path, request["signature"], trust=request["trust_model"])
    return load_keras(path, trust=request["trust_model"])


def load_keras(path: Path, *, trust: bool) -> Source:
    """Load a `.keras` or `.h5` file with Keras 3, else with tf-keras."""
    config, version = read_config(path)
    if trust:
        import_modules(config)
    else:
        refuse_code(path, config)
    legacy = version.startswith(("1.", "2."))
    errors: list[Exception] = []
    for name in ("keras", "tf_keras"):
        try:
            package = importlib.import_module(name)
            model = package.saving.load_model(str(path), compile=False, safe_mode=not trust)
            return flatten_keras(path, model)
        except _LOAD_ERRORS as error:
            errors.append(error)
    cause = errors[1] if legacy else errors[0]
    missing = _MISSING_CLASS.search(str(cause))
    if missing:
        raise RefusedError(
            "model",
            f"{path.name}: it uses {missing['name']}, which Keras does not know",
            _OWN_CODE,
        ) from cause
    raise RefusedError(
        "model",
        f"{path.name}: neither Keras nor tf-keras can load it (saved by Keras "
        f"{version or 'of an unknown version'}): {first_line(cause)}",
        "Save it again as .keras, or export it as a SavedModel with model.export(), with the "
        "Keras that made it.",
    ) from cause


def flatten_keras(path: Path, model: Any) -> Source:  # noqa: ANN401 - Keras is untyped
    """Make one flat function of a Keras model with whatever nesting of inputs and outputs."""
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise RefusedError(
            "model",
            f"{path.name}: {type(model).__name__} has no inputs of known shape: it was never "
            "built, or is subclassed",
            "Export it as a SavedModel with model.export(), and import that folder.",
        )
    # A loaded Sequential model (Keras 3.15) has `inputs`, always one, but no `input`.
    structure = getattr(model, "input", None)
    structure = model.inputs[0] if structure is None else structure
    # Layer names, as Keras itself names outputs; a Sequential model has no list of its own.
    names = getattr(model, "output_names", None) or [model.layers[-1].name]

    def call(*tensors: Any) -> list[Any]:  # noqa: ANN401 - TensorFlow is untyped
        packed = tf.nest.pack_sequence_as(structure, tensors)
        return list(tf.nest.flatten(model(packed, training=False)))

    return Source(
        call=call,
        inputs=[
            (each.name.split(":")[0], tuple(each.shape), tf.as_dtype(each.dtype))
            for each in model.inputs
        ],
        output_names=distinct(list(names), len(model.outputs)),
        held=model,
    )


def distinct(names: list[str], count: int) -> list[str]:
    """Give `count` names without a double: a layer with several outputs lends its name to all."""
    names = names if len(names) == count else [f"output_{index}" for index in range(count)]
    seen: dict[str, int] = {}
    result: list[str] = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        result.append(f"{name}_{seen[name]}" if seen[name] else name)
    return result


def read_config(path: Path) -> tuple[Any, str]:
    """Read a Keras file's architecture as JSON, without running any of it."""
    import h5py  # noqa: PLC0415 - only for .h5

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config, metadata = (
                    json.loads(read_member(archive, name))
                    for name in ("config.json", "metadata.json")
                )
            return config, str(metadata.get("keras_version", ""))
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
            version = file.attrs.get("keras_version", "")
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise RefusedError(
            "model",
            f"{path.name}: its configuration cannot be read: {first_line(error)}",
            "Copy or save the model again and compare its checksum.",
        ) from error
    if config is None:
        raise RefusedError(
            "model",
            f"{path.name}: expected a whole Keras model, but this HDF5 file has no model "
            "configuration: it holds weights only, or is no Keras file",
            "Save the model with model.save('model.keras') instead of save_weights().",
        )
    text = config.decode() if isinstance(config, bytes) else str(config)
    return json.loads(text), version.decode() if isinstance(version, bytes) else str(version)


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a file of an archive that may be a bomb."""
    if archive.getinfo(name).file_size > _MAXIMUM_CONFIG_BYTES:
        raise ValueError(f"{name} is larger than 256 MiB")
    return archive.read(name)


def objects_of(config: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - parsed JSON
    """Give every serialized object of a configuration, at any depth."""
    waiting = [config]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if "class_name" in each:
                yield each
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def refuse_code(path: Path, config: Any) -> None:  # noqa: ANN401 - parsed JSON
    """Refuse Lambda layers and code outside Keras, which loading would run.

    Keras 3 refuses Lambda layers itself; tf-keras runs those of `.h5` files.
    """
    lambdas: list[str] = []
    foreign: list[str] = []
    for each in objects_of(config):
        kind, inner = str(each["class_name"]), each.get("config")
        module = each.get("module")
        if kind in {"Lambda", "__lambda__"} or each.get("registered_name") == "Lambda":
            name = inner.get("name", kind) if isinstance(inner, dict) else kind
            lambdas.append(str(name))
        elif isinstance(module, str) and not is_keras(module):
            foreign.append(f"{kind} of module {module}")
    if lambdas:
        raise RefusedError(
            "model",
            f"{path.name}: it holds Lambda layers, which are code that runs on loading: "
            f"{', '.join(sorted(set(lambdas))[:_MOST_SHOWN])}",
            f"Replace them by Keras layers, or {_TRUST}.",
        )
    if foreign:
        raise RefusedError(
            "model",
            f"{path.name}: it uses {', '.join(sorted(set(foreign))[:_MOST_SHOWN])}, "
            "which is not Keras' own code",
            _OWN_CODE,
        )


def is_keras(module: str) -> bool:
    """Tell whether a module is Keras' own."""
    return any(module == root or module.startswith(f"{root}.") for root in _KERAS_ROOTS)


def import_modules(config: Any) -> None:  # noqa: ANN401 - parsed JSON
    """Import the user's modules a trusted model names, so that its classes are registered."""
    for each in objects_of(config):
        module = each.get("module")
        if isinstance(module, str) and not is_keras(module):
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise RefusedError(
                    "model",
                    f"it uses {each['class_name']} of module {module}, which this Python does "
                    f"not have: {first_line(error)}",
                    _OWN_CODE,
                ) from error


def load_saved_model(path: Path, key: str | None, *, trust: bool) -> Source:
    """Load one signature of a SavedModel."""
    if not trust:
        refuse_ops(path)
    try:
        loaded = tf.saved_model.load(str(path))
    except _LOAD_ERRORS as error:
        raise RefusedError(
            "model",
            f"{path.name}: TensorFlow cannot load this SavedModel: {first_line(error)}",
            "Copy or export it again, with its variables folder.",
        ) from error
    signatures = dict(loaded.signatures)
    if key is None:
        key = "serving_default" if "serving_default" in signatures or not signatures else None
        key = key or (next(iter(signatures)) if len(signatures) == 1 else None)
    if key is None or key not in signatures:
        known = ", ".join(sorted(signatures)) or "none"
        raise RefusedError(
            "model",
            f"{path.name}: expected the signature {key!r}, but it has {known}"
            if key
            else f"{path.name}: it has several signatures: {known}",
            "Choose one with --signature NAME."
            if signatures
            else "Export the model with model.export(), which adds one.",
        )
    function = signatures[key]
    inputs = sorted(function.structured_input_signature[1].items())
    names = sorted(function.structured_outputs)

    def call(*tensors: Any) -> list[Any]:  # noqa: ANN401 - TensorFlow is untyped
        arguments = {name: value for (name, _), value in zip(inputs, tensors, strict=True)}
        results = function(**arguments)
        return [results[name] for name in names]

    for name, spec in inputs:
        if spec.shape.rank is None:
            raise RefusedError(
                "model",
                f"{path.name}: input {name!r} has no shape, not even a number of dimensions",
                "Export the model with the shapes of its inputs.",
            )
    return Source(
        call=call,
        inputs=[(name, tuple(spec.shape.as_list()), spec.dtype) for name, spec in inputs],
        output_names=names,
        held=loaded,
    )


def refuse_ops(path: Path) -> None:
    """Refuse a graph with ops that run Python or reach files, processes or the network."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - only for SavedModels
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415

    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((path / "saved_model.pb").read_bytes())
    except (DecodeError, OSError) as error:
        raise RefusedError(
            "model",
            f"{path.name}: expected a SavedModel's graph in saved_model.pb, but reading it "
            f"failed: {first_line(error)}",
            "Copy or export the model again and compare its checksum.",
        ) from error
    ops = {
        node.op
        for meta in proto.meta_graphs
        for nodes in (meta.graph_def.node, *(f.node_def for f in meta.graph_def.library.function))
        for node in nodes
    }
    found = sorted(op for op in ops if _DANGEROUS_OP.fullmatch(op))
    if found:
        raise RefusedError(
            "model",
            f"{path.name}: its graph holds operations that run Python or reach files or the "
            f"network: {', '.join(found[:_MOST_SHOWN])}",
            f"Move them out of the model, or {_TRUST}.",
        )


if __name__ == "__main__":
    serve({"convert": convert, "run": run})
