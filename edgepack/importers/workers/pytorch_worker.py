"""Convert PyTorch models with litert-torch, or run them.

Runs inside the `pytorch` toolchain on its own interpreter.
"""

import hashlib
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Appended, so that nothing here shadows a framework's module.
sys.path.append(str(Path(__file__).parent))
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    Request,
    first_line,
    serve,
)
from precision import check_precision  # type: ignore[import-not-found]
from torch_archive import check_program, check_script  # type: ignore[import-not-found]
from torch_function import load_function  # type: ignore[import-not-found]
from torch_graph import (  # type: ignore[import-not-found]
    check_steady,
    describe_inputs,
    export_source,
    expose_nodes,
    lacking_operations,
    list_nodes,
)
from torch_lowering import lower_transposed  # type: ignore[import-not-found]
from torch_programs import load_program  # type: ignore[import-not-found]
from torch_scripts import load_script  # type: ignore[import-not-found]
from torch_sources import (  # type: ignore[import-not-found]
    TorchSource,
    flatten_outputs,
    run_source,
    shape_inputs,
)
from with_files import load_files  # type: ignore[import-not-found]

_MODEL = "model.tflite"
_RESAVE = (
    "Save the Python model itself: torch.export.save(torch.export.export(model, example_inputs), "
    "'model.pt2')."
)


def convert(request: Request) -> dict[str, Any]:
    """Write `model.tflite` in the work folder; describe the source's inputs and outputs."""
    source = load(request)
    tensors = shape_inputs(source, request["input_shapes"], request["dimensions"])
    outputs = check_steady(source, tensors)
    names, _ = flatten_outputs(source, run_source(source, tensors))
    program = export_source(source, tensors)
    hints = describe_inputs(program)
    module = program.module(check_guards=False)
    exposed = request["expose"]
    if exposed is not None:
        module = expose_nodes(program, exposed)
        names, outputs = list(exposed), list(module(*tensors))
    write_flatbuffer(source, program, module, tensors, Path(request["folder"]) / _MODEL)
    positions = program.graph_signature.user_inputs
    answer: dict[str, Any] = {
        "file": _MODEL,
        "converter": "litert-torch",
        "inputs": [
            {"name": each.name, **spec_of(tensor), **hints.get(position, {})}
            for each, tensor, position in zip(source.inputs, tensors, positions, strict=True)
        ],
        "outputs": [
            {"name": name, **spec_of(tensor)} for name, tensor in zip(names, outputs, strict=True)
        ],
        "model_inputs": [f"args_{index}" for index in range(len(tensors))],
        "model_outputs": [f"output_{index}" for index in range(len(outputs))],
        "notes": list(source.notes),
    }
    if request["format"] == "function":
        answer["sha256"] = digest_program(program)
    return answer


def run(request: Request) -> dict[str, Any]:
    """Run the source on each sample of the inputs file; write the outputs beside it.

    One of double answers as it is. One of half precision is run in float32, as the converted
    model is, once its own answers have been found to agree as far as its precision goes, unless
    PyTorch has no kernels for them on this machine.
    """
    source = load(request)
    folder = Path(request["folder"])
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        columns = [
            torch.from_numpy(arrays[str(index)]).to(each.dtype)
            for index, each in enumerate(source.inputs)
        ]
    samples = list(zip(*columns, strict=True))
    module = None
    if request["expose"] is not None:
        module = expose_nodes(export_source(source, samples[0]), request["expose"])
    results: list[list[Any]] = []
    for sample in samples:
        if module is None:
            _, tensors = flatten_outputs(source, run_source(source, sample))
        else:
            with torch.no_grad():
                tensors = list(module(*(each.clone() for each in sample)))
        results.append([to_array(each) for each in tensors])
    own = run_own(source, samples) if module is None else None
    if own is not None:
        if source.is_half:
            names, _ = flatten_outputs(source, run_source(source, samples[0]))
            check_precision(names, own, results)
        else:
            results = own
    stacked = {
        str(index): np.stack([sample[index] for sample in results])
        for index in range(len(results[0]))
    }
    np.savez(folder / "outputs.npz", **stacked)  # type: ignore[arg-type] # numpy types it as bool
    return {"file": "outputs.npz", "reference": request["title"]}


def run_own(
    source: TorchSource, samples: Sequence[Sequence[torch.Tensor]]
) -> list[list[Any]] | None:
    """Give a source's answers in its own precision; None where that is float32, or unknown here."""
    if source.own is None:
        return None
    own = replace(source, call=source.own)
    results = []
    for sample in samples:
        typed = [
            tensor if each.own_dtype is None else tensor.to(each.own_dtype)
            for each, tensor in zip(source.inputs, sample, strict=True)
        ]
        try:
            _, tensors = flatten_outputs(own, run_source(own, typed))
        except RefusedError:
            return None
        results.append([to_array(each) for each in tensors])
    return results


def to_array(tensor: torch.Tensor) -> Any:  # noqa: ANN401 - of any numbers
    """Give a tensor as an array that a file can hold: NumPy's own format knows no bfloat16."""
    whole = tensor.detach().resolve_conj().resolve_neg()
    return (whole.float() if whole.dtype == torch.bfloat16 else whole).numpy()


def nodes(request: Request) -> dict[str, Any]:
    """Name the operations whose outputs can be looked at, in the order they run."""
    source = load(request)
    tensors = shape_inputs(source, request["input_shapes"], request["dimensions"])
    return {"nodes": list_nodes(export_source(source, tensors))}


def load(request: Request) -> TorchSource:
    """Load the source model in the way its format asks for."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(max(1, min(4, torch.get_num_threads())))
    # The fused transformer layer is the host's own; nothing converts it.
    torch.backends.mha.set_fastpath_enabled(value=False)
    load_files(request["with_files"])
    trust = request["trust_model"]
    path = Path(request["model"])
    if request["format"] == "function":
        return load_function(request["model"], request["search_path"], request["input_shapes"])
    if request["format"] == "torchscript":
        check_script(path, trust=trust)
        return load_script(path)
    check_program(path, trust=trust, own_operations=bool(request["with_files"]))
    return load_program(path)


def write_flatbuffer(
    source: TorchSource,
    program: torch.export.ExportedProgram,
    module: torch.nn.Module,
    tensors: tuple[torch.Tensor, ...],
    path: Path,
) -> None:
    """Convert with litert-torch; name the operations it does not have."""
    import litert_torch  # noqa: PLC0415 - 6 s to import; the run operation does without

    lower_transposed(module, tensors)
    try:
        litert_torch.convert(module, tuple(tensors)).export(str(path))
    except Exception as error:
        # The MLIR bindings raise classes of private modules.
        lacking = lacking_operations(program)
        if lacking:
            raise RefusedError(
                "conversion",
                f"{source.title}: litert-torch cannot convert {'; '.join(lacking)}",
                _RESAVE
                if source.is_script
                else "Replace these operations in the model by others, or export it to ONNX "
                "(torch.onnx.export) and import that.",
            ) from error
        raise RefusedError(
            "conversion",
            f"{source.title}: litert-torch could not convert the model: {first_line(error)}",
            "Export the model to ONNX (torch.onnx.export) and import that.",
        ) from error


def spec_of(tensor: torch.Tensor) -> dict[str, Any]:
    """Give a tensor's shape and element type."""
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def digest_program(program: torch.export.ExportedProgram) -> str:
    """Give the hex sha256 of a program's operations, weights and constants."""
    whole = hashlib.sha256(program.graph_module.code.encode())
    for name, value in sorted({**program.state_dict, **program.constants}.items()):
        whole.update(f"\0{name} ".encode())
        if isinstance(value, torch.Tensor):
            whole.update(f"{tuple(value.shape)} {value.dtype}\0".encode())
            flat = value.detach().contiguous().reshape(-1)
            whole.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return whole.hexdigest()


if __name__ == "__main__":
    serve({"convert": convert, "run": run, "nodes": nodes})
