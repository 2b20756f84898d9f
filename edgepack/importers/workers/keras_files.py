"""Load `.keras` and `.h5` files, refusing code that a file brings along."""

import builtins
import importlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exchange import (  # type: ignore[import-not-found] # a sibling, outside any package here
    RefusedError,
    first_line,
)
from flat_source import (  # type: ignore[import-not-found]
    LOAD_ERRORS,
    MOST_SHOWN,
    TRUST,
    Source,
    reason,
)
from hdf5_files import refuse_outside  # type: ignore[import-not-found]
from keras_models import flatten_keras  # type: ignore[import-not-found]

_OWN_CODE = (
    "Give the Python file that defines it with --with FILE.py; or the Python that has it "
    "installed with --toolchain-python PATH, and allow running it with --trust-model."
)
_LAMBDA = "__lambda__"
_MAXIMUM_CONFIG_BYTES = 256 * 2**20
_CONFIG_ERRORS = (
    OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, RecursionError,
    NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_MISSING_CLASS = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown (?:layer|function|object)):? "
    r"'?(?P<name>[\w>.]+)"
)
# keras.utils.get_file, keras.saving.load_model and the like fetch, read and write.
_COMPUTING = frozenset(
    {
        "activations", "backend", "constraints", "initializers", "losses", "metrics", "ops",
        "random", "regularizers",
    }
)  # fmt: skip
_KERAS_ROOTS = ("keras", "tf_keras", "builtins", "tensorflow.keras")
# tf-keras writes calls of TensorFlow functions as layers with the function's name.
_TENSOR_FUNCTION = re.compile(
    r"(?:(?:math|nn|linalg|image|signal|sparse|bitwise|__operators__|compat\.v1\.nn)\.[\w.]+|"
    r"(?!py_function|numpy_function|print|load_)\w+)"
)


def load_keras(path: Path, *, trust: bool, objects: Mapping[str, object]) -> Source:
    """Load a `.keras` or `.h5` file with Keras 3, else with tf-keras.

    Args:
        path: the file.
        trust: run code that the file brings along, or names in other modules.
        objects: the user's own classes and functions by name, which the file may use.
    """
    config, version = read_config(path)
    refuse_outside(path)
    if trust:
        import_modules(config, objects)
    else:
        refuse_code(path, config, objects)
    legacy = version.startswith(("1.", "2."))
    errors: list[Exception] = []
    for name in ("keras", "tf_keras"):
        try:
            package = importlib.import_module(name)
            model = package.saving.load_model(
                str(path), custom_objects=dict(objects), compile=False, safe_mode=not trust
            )
        except LOAD_ERRORS as error:
            errors.append(error)
        else:
            return flatten_keras(path, model)
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
        f"{version or 'of an unknown version'}): {reason(cause)}",
        "Save it again as .keras, or export it as a SavedModel with model.export(), with the "
        "Keras that made it.",
    ) from cause


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
    except _CONFIG_ERRORS as error:
        raise _unreadable(path, error) from error
    if config is None:
        raise RefusedError(
            "model",
            f"{path.name}: expected a whole Keras model, but this HDF5 file has no model "
            "configuration: it holds weights only, or is no Keras file",
            "Save the model with model.save('model.keras') instead of save_weights().",
        )
    try:
        parsed = json.loads(config)
    except _CONFIG_ERRORS as error:
        raise _unreadable(path, error) from error
    return parsed, version.decode() if isinstance(version, bytes) else str(version)


def _unreadable(path: Path, error: Exception) -> RefusedError:
    return RefusedError(
        "model",
        f"{path.name}: its configuration cannot be read: {first_line(error)}",
        "Copy or save the model again and compare its checksum.",
    )


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


def refuse_code(path: Path, config: Any, objects: Mapping[str, object]) -> None:  # noqa: ANN401 - parsed JSON
    """Refuse Lambda layers and code outside Keras, which loading would run.

    Keras 3 refuses Lambda layers itself; tf-keras runs those of `.h5` files, and takes
    functions from any module. What the user's own files define may be used.
    """
    lambdas: list[str] = []
    foreign: list[str] = []
    for each in objects_of(config):
        kind, inner = str(each["class_name"]), each.get("config")
        module = each.get("module")
        if kind in {"Lambda", _LAMBDA} or each.get("registered_name") == "Lambda":
            name = inner.get("name", kind) if isinstance(inner, dict) else kind
            lambdas.append(str(name))
        elif kind in objects or (kind == "function" and str(inner) in objects):
            continue
        elif isinstance(module, str) and not is_keras(module):
            foreign.append(f"{kind} of module {module}")
        elif kind == "function" and isinstance(module, str) and not is_computing(module):
            foreign.append(f"the function {str(inner)[:100]} of module {module}")
        elif kind in {"TFOpLambda", "ClassMethod"} and not is_tensor_function(inner):
            foreign.append(f"a {kind} layer with {str(inner)[:100]}")
        elif module == "builtins" and kind == "function" and str(inner) in vars(builtins):
            foreign.append(f"Python's {inner}")
    if lambdas:
        # The layer's name, where it has one; its function is an object of its own within.
        lambdas = [name for name in lambdas if name != _LAMBDA] or lambdas
        raise RefusedError(
            "model",
            f"{path.name}: it holds Lambda layers, which are code that runs on loading: "
            f"{', '.join(sorted(set(lambdas))[:MOST_SHOWN])}",
            f"Replace them by Keras layers, or {TRUST}.",
        )
    if foreign:
        raise RefusedError(
            "model",
            f"{path.name}: it uses {', '.join(sorted(set(foreign))[:MOST_SHOWN])}, "
            "which is not Keras' own code",
            _OWN_CODE,
        )


def is_tensor_function(config: object) -> bool:
    """Tell whether a layer's configuration names a TensorFlow function that only computes."""
    name = config.get("function") if isinstance(config, dict) else None
    return isinstance(name, str) and _TENSOR_FUNCTION.fullmatch(name) is not None


def is_computing(module: str) -> bool:
    """Tell whether the functions of one of Keras' own modules only compute."""
    return module == "builtins" or bool(_COMPUTING.intersection(module.split(".")))


def is_keras(module: str) -> bool:
    """Tell whether a module is Keras' own."""
    return any(module == root or module.startswith(f"{root}.") for root in _KERAS_ROOTS)


def import_modules(config: Any, objects: Mapping[str, object]) -> None:  # noqa: ANN401 - parsed JSON
    """Import the user's modules a trusted model names, so that its classes are registered."""
    for each in objects_of(config):
        module = each.get("module")
        if each["class_name"] in objects or each.get("config") in list(objects):
            continue
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
