"""Tell PyTorch's archives apart, and refuse those whose loading would run foreign code.

PyTorch's own words (2.13): `torch.export.load` "uses pickle under the hood, never load data
from an untrusted source". Looked at closely, loading a `.pt2` runs what its parts say in five
ways: pickles, compiled AOTInductor libraries, sympy expressions (given to `eval`), structures
of inputs and outputs (modules named there are imported), and names of operations (any path of
attributes from `torch`, such as `torch.os.system`). All five are read here as plain data first.

Runs inside the `pytorch` toolchain on its own interpreter.
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)

_MAXIMUM_JSON_BYTES = 512 * 2**20
_MOST_SHOWN = 5
_TRUST = "pass --trust-model if you know where this model comes from"
# aten.from_file maps a file into memory; save and load are TorchScript's.
_FILE_OPS = frozenset({"from_file", "save", "load"})
_OPERATION = re.compile(
    r"torch\.ops\.(?P<space>\w+)\.(?P<name>\w+)(?:\.\w+)?|torch\.sym_\w+|_operator\.\w+|math\.\w+"
    r"|torch\._(?:constrain_as_size|check)"
)
_OWN_SPACES = frozenset({"aten", "higher_order", "prim", "prims", "quantized_decomposed"})
_OWN_STRUCTURES = frozenset({
    "builtins.dict", "builtins.list", "builtins.tuple", "collections.OrderedDict",
    "collections.deque", "collections.namedtuple",
})  # fmt: skip
_EXPRESSION_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name,
    ast.Constant, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context, ast.keyword,
)  # fmt: skip
_FUNCTIONS = frozenset({
    "Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality", "Float",
    "FloatPow", "FloatTrueDiv", "FloorDiv", "FloorToInt", "Ge", "GreaterThan", "Gt",
    "Identity", "IntTrueDiv", "Integer",
    "IsNonOverlappingAndDenseIndicator", "LShift", "Le", "LessThan", "Lt", "Max", "Min", "Mod",
    "ModularIndexing", "Mul", "Ne", "Not", "Or", "Pow", "PowByNatural", "PythonMod", "RShift",
    "Rational", "RoundDecimal", "RoundToInt", "StrictGreaterThan", "StrictLessThan", "Symbol",
    "ToFloat", "TruncToFloat", "TruncToInt", "Unequality", "Where", "ceiling", "floor",
})  # fmt: skip
_SYMBOL = re.compile(r"[a-z]{1,3}\d+|oo|int_oo|True|False")
_PLAIN_TEXT = re.compile(r"[A-Za-z]{1,3}\d*|[0-9.e+-]+")
_SCRIPT_FILE_CALL = re.compile(r"\b(?:torch|ops\.aten)\.(?:from_file|save|load)\b")


def check_program(path: Path, *, trust: bool, own_operations: bool) -> None:
    """Refuse a `.pt2` whose loading would run code, or whose parts are not to be had.

    Args:
        path: the file.
        trust: let it run what it likes.
        own_operations: the user gave files that define operations and structures.

    Raises:
        RefusedError: no such archive, or it holds code; all faults at once.
    """
    faults: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            faults += _directory_faults(archive.namelist())
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            if any(name.startswith("data/aotinductor/") for name in names) and not any(
                name.startswith("models/") for name in names
            ):
                raise RefusedError(
                    "model",
                    f"{path.name}: it holds machine code compiled by AOTInductor, and no program "
                    "that could be converted",
                    "Save the program itself: torch.export.save(torch.export.export(model, "
                    "example_inputs), 'model.pt2').",
                )
            if trust:
                return
            for name, member in names.items():
                faults += _member_faults(archive, name, member, own_operations=own_operations)
            # Before PyTorch 2.8 the members stood in no folder.
            for member in archive.namelist():
                if member.startswith("serialized_"):
                    faults += _member_faults(archive, member, member, own_operations=own_operations)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, RecursionError) as error:
        raise RefusedError(
            "model",
            f"{path.name}: its program cannot be read: {first_line(error)}",
            "Copy or export the model again and compare its checksum.",
        ) from error
    if faults:
        shown = list(dict.fromkeys(faults))
        more = f"; and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
        raise RefusedError(
            "model",
            f"{path.name}: loading or running it would do more than compute: "
            f"{'; '.join(shown[:_MOST_SHOWN])}{more}",
            f"Give what defines its own operations with --with FILE.py, or {_TRUST}.",
        )


def check_script(path: Path, *, trust: bool) -> None:
    """Refuse TorchScript that reaches files; its language has no other way out."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = sorted(
                {
                    match[0]
                    for name in archive.namelist()
                    if "/code/" in name and name.endswith(".py")
                    for match in _SCRIPT_FILE_CALL.finditer(
                        _read(archive, name).decode(errors="replace")
                    )
                }
            )
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RefusedError(
            "model",
            f"{path.name}: its TorchScript cannot be read: {first_line(error)}",
            "Copy or save the model again and compare its checksum.",
        ) from error
    if found and not trust:
        raise RefusedError(
            "model",
            f"{path.name}: its TorchScript reaches files: {', '.join(found)}",
            f"Take that out of the model, or {_TRUST}.",
        )


def _directory_faults(members: list[str]) -> Iterator[str]:
    """Tell of names that PyTorch's reader, which ignores case, may take for one another."""
    if len({name.lower() for name in members}) < len(members):
        yield "it has two files of one name"
    if len({name.partition("/")[0] for name in members if "/" in name}) > 1:
        yield "its files stand in several folders"


def _member_faults(
    archive: zipfile.ZipFile, name: str, member: str, *, own_operations: bool
) -> Iterator[str]:
    folder, _, file = name.rpartition("/")
    is_program = (folder == "models" and file.endswith(".json")) or name.startswith(
        "serialized_exported_program"
    )
    if is_program:
        yield from _program_faults(
            json.loads(_read(archive, member)), own_operations=own_operations
        )
    elif name.startswith("data/aotinductor/"):
        yield "it holds compiled machine code (AOTInductor)"
    elif file.startswith(("custom_obj_", "opaque_obj_")):
        yield f"it holds a pickled object ({file})"
    elif file.endswith("_config.json"):
        base = "data/weights" if folder.endswith("weights") else "data/constants"
        root = member[: len(member) - len(name)]
        table = json.loads(_read(archive, member)).get("config", {})
        for key, entry in table.items():
            if entry.get("use_pickle"):
                pickled = f"{root}{base}/{entry.get('path_name')}"
                yield from _pickle_faults(_read(archive, pickled), f"tensor {key!r}")
    elif name.startswith("serialized_") or (
        file.endswith(".pt") and folder in {"data/sample_inputs", "data/weights", "data/constants"}
    ):
        yield from _pickle_faults(_read(archive, member), name)


def _pickle_faults(data: bytes, title: str) -> Iterator[str]:
    """Try what PyTorch loads without running code; it falls back on the other way itself."""
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001 - pickles raise anything
        text = re.sub(r"\s+", " ", str(error))
        found = re.search(r"GLOBAL ([\w.]+)", text)
        yield f"{title} is a pickle that holds {found[1] if found else 'more than tensors'}"


def _tables(root: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    """Give every table of a JSON value, at any depth."""
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting.extend(each)
        if isinstance(each, dict):
            waiting.extend(each.values())
            yield each


def _program_faults(program: Any, *, own_operations: bool) -> Iterator[str]:  # noqa: ANN401 - JSON
    for each in _tables(program):
        target, expression = each.get("target"), each.get("expr_str")
        if isinstance(target, str) and "inputs" in each:
            yield from _operation_faults(target, own_operations=own_operations)
        if expression is not None and not _is_plain_expression(str(expression)):
            yield f"a dimension is no arithmetic: {str(expression)[:60]!r}"
        for key in ("in_spec", "out_spec"):
            if isinstance(each.get(key), str) and each[key]:
                yield from _structure_faults(json.loads(each[key]), own_types=own_operations)
        name = each.get("name")
        # Names of values become variables of generated Python; PyTorch makes them identifiers.
        if isinstance(name, str) and name and not name.isidentifier():
            yield f"a value's name is no identifier: {name[:60]!r}"


def _operation_faults(target: str, *, own_operations: bool) -> Iterator[str]:
    match = _OPERATION.fullmatch(target)
    space = match["space"] if match else None
    if match is None or (match["name"] or "") in _FILE_OPS or "__" in target.partition(".")[2][:2]:
        yield f"it calls {target[:80]}"
    elif space is not None and space not in _OWN_SPACES and not own_operations:
        yield f"it calls {target[:80]}, which PyTorch itself does not have"


def _structure_faults(spec: Any, *, own_types: bool) -> Iterator[str]:  # noqa: ANN401 - JSON
    for each in _tables(spec):
        kind, context = each.get("type"), each.get("context")
        if isinstance(kind, str) and kind not in _OWN_STRUCTURES and not own_types:
            yield f"its inputs or outputs stand in a {kind[:80]}"
        if isinstance(context, dict) or "__enum__" in str(context):
            yield f"its inputs or outputs name code to import: {str(context)[:80]}"
        elif kind == "builtins.dict" and isinstance(context, str):
            keys = json.loads(context)
            yield from (
                f"a key of its inputs or outputs is no plain text: {str(key)[:60]!r}"
                for key in keys or ()
                if not re.fullmatch(r"[\w.:/ -]*", str(key))
            )


def _is_plain_expression(text: str) -> bool:
    """Tell whether sympy, which gives it to `eval`, would find nothing but arithmetic."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _EXPRESSION_NODES):
            return False
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
                return False
        elif isinstance(node, ast.Name):
            if not _SYMBOL.fullmatch(node.id) and node.id not in _FUNCTIONS:
                return False
        elif isinstance(node, ast.Constant):
            # Texts are names of symbols and digits: Symbol('s0', integer=True), Float('0.5').
            is_name = isinstance(node.value, str) and _PLAIN_TEXT.fullmatch(node.value) is not None
            if not is_name and not isinstance(node.value, (int, float)):
                return False
    return True


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member of an archive that may be a bomb."""
    if archive.getinfo(name).file_size > _MAXIMUM_JSON_BYTES and name.endswith((".json", ".py")):
        raise ValueError(f"{name} is larger than {_MAXIMUM_JSON_BYTES >> 20} MiB")
    return archive.read(name)
