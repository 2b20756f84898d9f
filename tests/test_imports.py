"""The import direction of docs/architecture.md, who may print, and what start-up may cost."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import edgepack

PACKAGE = Path(edgepack.__file__).parent
ARCHITECTURE = PACKAGE.parent / "docs" / "architecture.md"

FOUNDATION = {"errors", "_fields", "interrupts", "scratch"}
# Seconds to import, or heavy in memory: nothing that `edgepack --help` may wait for.
HEAVY = {
    *("ai_edge_litert", "ai_edge_quantizer", "keras", "matplotlib", "numpy", "onnx", "paramiko"),
    *("PIL", "rich", "tensorflow", "torch", "cryptography", "flatbuffers"),
}
# These live in toolchains, never in the process that EdgePack runs in.
TOOLCHAINS_ONLY = {
    *("keras", "litert_torch", "onnx2tf", "onnxruntime", "onnxsim", "tensorflow"),
    *("tensorflow_model_optimization", "tf_keras", "torch"),
}


@cache
def trees() -> dict[str, ast.Module]:
    """Give the syntax tree of each module by its dotted name below the package."""
    parsed = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        parsed[name.removesuffix("__init__").removesuffix(".")] = ast.parse(path.read_text())
    return parsed


@cache
def table() -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Give each row of the documented table: its rooms, and what they may import."""
    text = ARCHITECTURE.read_text().split("## Rooms")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \| [^|]+ \| ([^|]+) \|$", text, flags=re.MULTILINE)
    read: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    for rooms, imports in rows:
        above = tuple(room for names, _ in read for room in names)
        allowed = tuple(name.strip(" `") for name in imports.split(","))
        names = tuple(re.findall(r"`([a-z_.]+)/?`", rooms))
        if allowed == ("all above",):
            allowed = above
        read.append((names, () if allowed == ("–",) else allowed))  # noqa: RUF001 - the table's dash
    return tuple(read)


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Give the dotted name of every module that is imported anywhere in a tree."""
    for node in ast.walk(tree):
        yield from _imported(node)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(name: str) -> str | None:
    """Give the part below the package of an imported name of ours."""
    below = name.removeprefix("edgepack.")
    return None if below in {name, "__version__"} else below


def room_of(module: str) -> str:
    """Give the narrowest room of the table that holds a module; its first part where none does."""
    rooms = [room for names, _ in table() for room in names if is_in(module, room)]
    return max(rooms, key=len, default=module.split(".", maxsplit=1)[0])


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def is_program(module: str) -> bool:
    """Tell whether a module runs in a process of its own, where it may print and exit."""
    return room_of(module) == "runner" or any(
        isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        for node in trees()[module].body
    )


def test_every_module_has_a_room() -> None:
    rooms = {room for names, _ in table() for room in names}
    packages = {room.rpartition(".")[0] for room in rooms}
    assert {room_of(module) for module in trees()} - {""} - packages == rooms


def test_each_row_names_rows_above_it_only() -> None:
    above: set[str] = set()
    for names, allowed in table():
        assert all(any(is_in(a, each) or is_in(each, a) for a in above) for each in allowed), names
        above |= set(names)


def test_imports_go_in_the_documented_direction() -> None:
    faults = []
    for names, allowed in table():
        may = {*allowed, *names, *FOUNDATION}
        for module, tree in trees().items():
            if room_of(module) not in names:
                continue
            for name in imports_of(tree):
                below = ours(name)
                if below is not None and not any(is_in(below, each) for each in may):
                    faults.append(f"{module} imports {name}")
    assert faults == []


def test_what_is_sent_to_devices_and_toolchains_knows_nothing_of_us() -> None:
    for module, tree in trees().items():
        if room_of(module) == "runner" or module.startswith("importers.workers."):
            assert [
                name
                for name in imports_of(tree)
                if name.startswith("edgepack") and not name.startswith("edgepack.importers.workers")
            ] == [], module


def test_frameworks_are_imported_by_workers_only() -> None:
    found = {
        module
        for module, tree in trees().items()
        if not module.startswith("importers.workers.")
        and any(name.split(".")[0] in TOOLCHAINS_ONLY for name in imports_of(tree))
    }
    assert found == set()


def test_only_commands_and_programs_of_their_own_print_or_exit() -> None:
    faults = []
    for module, tree in trees().items():
        if room_of(module) in {"commands", "cli", "__main__"} or is_program(module):
            continue
        for node in ast.walk(tree):
            target = ""
            if isinstance(node, ast.Call):
                target = ast.unparse(node.func)
            elif isinstance(node, ast.Raise) and node.exc is not None:
                target = ast.unparse(node.exc).split("(")[0]
            if target in {
                *("print", "input", "exit", "quit", "sys.exit", "os._exit", "os.abort"),
                *("SystemExit", "sys.stdout.write", "sys.stderr.write", "click.echo"),
            }:
                faults.append(f"{module}:{node.lineno} {target}")  # type: ignore[attr-defined]
    assert faults == []


def test_nothing_heavy_is_imported_at_the_top_of_what_the_command_line_starts_with() -> None:
    reached, waiting = set(), ["cli", "__main__"]
    heavy = []
    while waiting:
        module = waiting.pop()
        if module in reached or module not in trees():
            continue
        reached.add(module)
        # Importing a module imports the packages it lies in.
        waiting += [module.rpartition(".")[0]]
        for node in _run_on_import(trees()[module]):
            for name in _imported(node):
                if name.split(".")[0] in HEAVY:
                    heavy.append(f"{module} imports {name}")
                below = ours(name)
                if below is not None:
                    waiting += [below, below.rpartition(".")[0]]
    assert heavy == []
    assert "commands.boundary" in reached


def _run_on_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Walk what runs when a module is imported: all but the bodies of functions."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [
            child
            for child in ast.iter_child_nodes(node)
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        ]


def test_help_really_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from edgepack.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 0, ended.code\n"
        "print('loaded:', *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split("loaded:")[1].split())
    assert "click" in loaded
    assert loaded & HEAVY == set()
