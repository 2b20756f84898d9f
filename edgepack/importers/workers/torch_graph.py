"""The exported program of a PyTorch model: making it, looking into it, cutting it.

Runs inside the `pytorch` toolchain on its own interpreter.
"""

import copy
import re
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
)
from torch.utils import _pytree as pytree
from torch_sources import (  # type: ignore[import-not-found]
    RUN_ERRORS,
    TorchSource,
    flatten_outputs,
    reason_of,
    run_source,
)

_MOST_SHOWN = 5
_INDEXED = {"embedding": 1, "index_select": 2}
_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
# What an index passes through on its way into a table without changing its range.
_PASSING = frozenset({
    "_to_copy", "alias", "clone", "contiguous", "detach", "expand", "flatten", "narrow",
    "permute", "reshape", "select", "slice", "squeeze", "t", "to", "transpose", "unsqueeze",
    "unflatten", "view",
})  # fmt: skip
_VIEWS = _PASSING - {"_to_copy", "clone", "contiguous", "to"}
_DATA_DEPENDENT = re.compile(r"data-dependent|GuardOnDataDependent|unbacked", re.IGNORECASE)
_USER_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def _convolution(*args: Any) -> torch.Tensor:  # noqa: ANN401 - as the operation has them
    """Leave out the four arguments that choose a backend."""
    return torch.ops.aten.convolution.default(*args[:9])


# What only TorchScript calls, in operations that are converted.
_SCRIPT_OPERATIONS = {torch.ops.aten._convolution.default: _convolution}  # noqa: SLF001 - its name


class _Listed(torch.nn.Module):  # type: ignore[misc] # PyTorch is untyped here
    """The source with its outputs as a flat tuple of tensors."""

    def __init__(self, source: TorchSource) -> None:
        super().__init__()
        self.call = source.call
        self._source = source

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        _, outputs = flatten_outputs(self._source, self.call(*tensors))
        # An output that is an input, or stands twice, would be one tensor in the flatbuffer.
        seen: set[int] = {id(each) for each in tensors}
        distinct = []
        for each in outputs:
            distinct.append(each.clone() if id(each) in seen else each)
            seen.add(id(each))
        return tuple(distinct)


def export_source(
    source: TorchSource, tensors: Sequence[torch.Tensor]
) -> torch.export.ExportedProgram:
    """Trace the model for inputs of these shapes.

    Raises:
        RefusedError: control flow that depends on values, state kept between calls, or what
            PyTorch cannot trace for another reason.
    """
    try:
        module = _trace_script(source, tensors) if source.is_script else _Listed(source)
        program = torch.export.export(module, tuple(tensors), strict=False)
    except Exception as error:
        # torch._dynamo's errors derive from Exception alone, and their modules are private.
        if not isinstance(error, RUN_ERRORS) and not type(error).__module__.startswith("torch"):
            raise
        raise _export_fault(source, error) from error
    open_ended = [
        title_of(node)
        for node in program.graph.nodes
        if isinstance(node.meta.get("val"), torch.Tensor)
        and any(not isinstance(size, int) for size in node.meta["val"].shape)
    ]
    if open_ended:
        raise RefusedError(
            "conversion",
            f"{source.title}: the shape of {', '.join(open_ended[:_MOST_SHOWN])} depends on the "
            "values of tensors, and a TFLite graph has the same shapes for every input",
            "Keep shapes free of values: torch.where in place of boolean masks, topk in place of "
            "nonzero.",
        )
    kept = sorted(_written_buffers(program))
    if kept:
        raise RefusedError(
            "conversion",
            f"{source.title}: running it changes its buffers {', '.join(kept[:_MOST_SHOWN])}, and "
            "the converted model would forget that between two calls",
            "Make that state an input and an output of forward, zero in the first call.",
        )
    return program


def _written_buffers(program: torch.export.ExportedProgram) -> set[str]:
    """Give the buffers that operations write into, but for the count of training batches."""
    buffers = program.graph_signature.inputs_to_buffers
    found = set()
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable:
            continue
        for argument, value in zip(schema.arguments, node.args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                found.add(buffers.get(_origin(value, _VIEWS), ""))
    named = {name.removeprefix("call.").removeprefix("inner.") for name in found if name}
    return {name for name in named if not name.endswith("num_batches_tracked")}


def _trace_script(source: TorchSource, tensors: Sequence[torch.Tensor]) -> torch.nn.Module:
    """Write down the operations that TorchScript calls; its loops and branches fall away.

    Neither way does all (2.13): TS2EPConverter fails on `prim::If` with tuples, as in every
    scripted LSTM, and the other on sizes that a trace computes as tensors.
    """
    from torch._export.converter import TS2EPConverter  # noqa: PLC0415 - 1 s to import
    from torch.fx.experimental.proxy_tensor import make_fx  # noqa: PLC0415 - likewise

    # oneDNN's fused operations are the host's own; nothing converts them.
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        try:
            return make_fx(_Listed(source), decomposition_table=_SCRIPT_OPERATIONS)(*tensors)
        except RUN_ERRORS as error:
            try:
                program = TS2EPConverter(source.call, tuple(tensors), {}).convert()
            except Exception:  # noqa: BLE001 - whatever it is, the first way's error says more
                raise error from None
    return _Listed(replace(source, call=program.module(check_guards=False)))


def list_nodes(program: torch.export.ExportedProgram) -> list[dict[str, str]]:
    """Give the operations whose outputs are tensors of numbers that depend on the inputs."""
    return [
        {"name": title_of(node), "op": op_of(node), "output": node.name}
        for node in program.graph.nodes
        if node in _depending(program) and _is_data(node)
    ]


def expose_nodes(program: torch.export.ExportedProgram, names: Sequence[str]) -> torch.nn.Module:
    """Give the program as a module whose outputs are exactly the named nodes'.

    Raises:
        RefusedError: there is no such node.
    """
    module = program.module(check_guards=False)
    nodes = {node.name: node for node in module.graph.nodes}
    missing = [name for name in names if name not in nodes]
    if missing:
        raise RefusedError(
            "model",
            f"expected nodes of the program, but it has none called {', '.join(missing)}",
            "Report this as a bug of EdgePack, with the model if you can.",
        )
    graph = module.graph
    (output,) = (node for node in graph.nodes if node.op == "output")
    values = tuple(nodes[name] for name in names)
    output.args = (values,)
    output.meta["val"] = tuple(node.meta.get("val") for node in values)
    # The generated code packs outputs into the structure they had.
    codegen = graph._codegen  # noqa: SLF001 - set_codegen has no getter
    _, structure = pytree.tree_flatten(values)
    codegen.pytree_info = codegen.pytree_info._replace(out_spec=structure)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in {"placeholder", "output"})
    module.recompile()
    return module


def describe_inputs(program: torch.export.ExportedProgram) -> dict[str, dict[str, Any]]:
    """Tell of each input by its node's name how large its integers may be, and which are states."""
    found: dict[str, dict[str, Any]] = {}
    users = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        name = op_of(node)
        if name in _INDEXED and len(node.args) > _INDEXED[name]:
            origin = _origin(node.args[_INDEXED[name]])
            table = node.args[0].meta.get("val")
            if origin in users and isinstance(table, torch.Tensor):
                axis = node.args[1] if name == "index_select" else 0
                largest = int(table.shape[axis]) - 1
                entry = found.setdefault(origin, {})
                entry["maximum"] = min(largest, entry.get("maximum", largest))
        elif name in _RECURRENT and len(node.args) > 1:
            states = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
            for state in states:
                origin = _origin(state)
                if origin in users:
                    found.setdefault(origin, {})["role"] = "state"
    return found


def lacking_operations(program: torch.export.ExportedProgram) -> list[str]:
    """Name the operations that litert-torch cannot lower, each with where it stands."""
    from litert_torch import fx_infra  # noqa: PLC0415 - 3 s to import
    from litert_torch.backend import lowerings  # noqa: PLC0415

    lowered = copy.deepcopy(program)
    for table in (fx_infra.decomp.pre_convert_decomp(), fx_infra.decomp.pre_lower_decomp()):
        lowered = fx_infra.safe_run_decompositions(lowered, table, can_skip=False)
    found: dict[str, list[str]] = {}
    for node in lowered.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001 - arithmetic on sizes
            continue
        if lowerings.lookup(node.target) is None:
            found.setdefault(str(node.target), []).append(title_of(node))
    return [f"{op} ({', '.join(names[:_MOST_SHOWN])})" for op, names in sorted(found.items())]


def op_of(node: torch.fx.Node) -> str:
    """Give an operation's name without namespace and overload: `conv2d`."""
    packet = getattr(node.target, "overloadpacket", None)
    return str(getattr(packet, "__name__", "") or getattr(node.target, "__name__", node.target))


def title_of(node: torch.fx.Node) -> str:
    """Give a node's name with the path of the module it stands in: `layer1.0.conv: conv2d_3`."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values() if path]
    # Without the wrappers that made the model flat.
    path = (
        re.sub(r"^(?:L__self__|L\['self'\])?\.?(?:call(?:\.|$))?(?:inner(?:\.|$))?", "", paths[-1])
        if paths
        else ""
    )
    return f"{path}: {node.name}" if path else str(node.name)


def check_steady(source: TorchSource, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Give the outputs for an example; refuse a model that answers otherwise the second time."""
    names, first = flatten_outputs(source, run_source(source, tensors))
    _, second = flatten_outputs(source, run_source(source, tensors))
    unlike = [
        name
        for name, one, other in zip(names, first, second, strict=True)
        if not torch.equal(torch.nan_to_num(one.detach()), torch.nan_to_num(other.detach()))
    ]
    if unlike:
        raise RefusedError(
            "model",
            f"{source.title}: it answers the same inputs otherwise each time in its output "
            f"{', '.join(unlike)}",
            "Take random numbers and state kept between calls out of forward, or make them inputs.",
        )
    return list(first)


def _export_fault(source: TorchSource, error: Exception) -> RefusedError:
    text = str(error)
    place = _place(error, text)
    if _DATA_DEPENDENT.search(f"{type(error).__name__} {text}") or "tracing tensor" in text:
        return RefusedError(
            "conversion",
            f"{source.title}: its control flow depends on the values of tensors{place}, and "
            "a TFLite graph is the same for every input",
            "Choose with torch.where or torch.cond instead of `if`, and keep shapes free of values "
            "(no nonzero, no boolean masks, no .item()).",
        )
    return RefusedError(
        "conversion",
        f"{source.title}: torch.export cannot trace it{place}: {reason_of(error)}",
        "Rewrite what stands there with PyTorch's own operations on tensors.",
    )


def _place(error: Exception, text: str) -> str:
    """Give ` (file.py, line 3)`, the last line of the user's own that led to an error."""
    frames = [(match["file"], match["line"]) for match in _USER_FRAME.finditer(text)]
    frames += [
        (frame.filename, str(frame.lineno)) for frame in traceback.extract_tb(error.__traceback__)
    ]
    here = str(Path(__file__).parent)
    own = [
        (file, line)
        for file, line in frames
        if "site-packages" not in file
        and not file.startswith((here, "<"))
        and "/torch/" not in file
    ]
    return f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""


def _depending(program: torch.export.ExportedProgram) -> set[torch.fx.Node]:
    users = set(program.graph_signature.user_inputs)
    found: set[torch.fx.Node] = set()
    for node in program.graph.nodes:
        if node.op == "call_function" and any(
            each in found or each.name in users for each in node.all_input_nodes
        ):
            found.add(node)
    return found


def _is_data(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in {
        torch.float16, torch.float32, torch.float64, torch.int32, torch.int64,
    }  # fmt: skip


def _origin(node: Any, through: frozenset[str] = _PASSING) -> str:  # noqa: ANN401 - an argument
    """Give the input a value comes from unchanged, else an empty text."""
    while isinstance(node, torch.fx.Node) and node.op == "call_function" and op_of(node) in through:
        node = node.args[0]
    return str(node.name) if isinstance(node, torch.fx.Node) and node.op == "placeholder" else ""
