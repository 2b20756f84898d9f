"""Run the model beside this file on an image or on arrays, and print its answer.

Needs Python 3.7, numpy, and ai_edge_litert or tflite_runtime; Pillow where pictures are other
than .ppm and .pgm. On a device that EdgePack deployed to, the runtime it brought is found by
itself. `python3 example.py --help` tells what to give.
"""

# A copy of this file, with the contract of one model, is part of every bundle.
# ruff: noqa: ANN401, FA100, T201 - the runtimes are untyped; Python 3.7 runs it; it prints

import argparse
import io
import json
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

# What the model takes and gives; filled in when the model is packed.
CONTRACT: Dict[str, Any] = json.loads(r"""{}""")

HERE = Path(__file__).resolve().parent
# Raw values of .ppm and .pgm files have one byte up to here.
_MAXIMUM_PIXEL = 255
_IMAGE_RANK = 4
_PICTURE_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_BILINEAR = 2  # what Pillow calls so in every version
_FEW = 16
# EOFError for an empty file, ValueError for one that is no array or an array of objects (numpy
# 1.26 and 2.4); the others are those of an .npz.
_DAMAGED = (ValueError, EOFError, zipfile.BadZipFile, zlib.error)


class ExampleError(Exception):
    """What was given does not fit the model; the message says what does."""


def main(arguments: List[str]) -> int:
    """Run the model on what the command line names; 0 when it answered."""
    options = _parse(arguments)
    try:
        numpy, make = _import_runtime()
        interpreter = _open_model(make, options.threads)
        feeds = _read_feeds(numpy, options)
        answers = _run(numpy, interpreter, feeds)
        for index, (output, answer) in enumerate(zip(CONTRACT["outputs"], answers)):
            real = _to_real(numpy, answer, output)
            _show(numpy, output, real, options.top)
            if options.save is not None:
                path = options.save / f"output-{index:03}.npy"
                options.save.mkdir(parents=True, exist_ok=True)
                numpy.save(str(path), real)
                print(f"  saved as {path}")
    except (ExampleError, OSError) as error:
        sys.stderr.write(f"example.py: {error}\n")
        return 1
    return 0


def _parse(arguments: List[str]) -> argparse.Namespace:
    lines = [
        f"Run {_clean(CONTRACT['name'])} {_clean(CONTRACT['version'])}.",
        "",
        "inputs:",
    ]
    lines += ["  " + _describe(each) for each in CONTRACT["inputs"]]
    lines += ["outputs:"] + ["  " + _describe(each) for each in CONTRACT["outputs"]]
    lines += [
        "",
        "A FILE is a picture (for an image input), an array (.npy, or .npz with one array an",
        "input), numbers (.txt, .csv) or the input's raw little-endian bytes (.bin).",
    ]
    parser = argparse.ArgumentParser(
        description="\n".join(lines).replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="[NAME=]FILE",
        help="one file for each input, in their order or by name",
    )
    parser.add_argument(
        "--golden",
        action="store_true",
        help="run on the sample that came with the model instead",
    )
    parser.add_argument("--top", type=int, default=5, help="how many classes to print")
    parser.add_argument("--threads", type=int, default=1, help="threads of the runtime")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the outputs there")
    parser.add_argument("--scale", metavar="X", help="multiply pixels by this, such as 1/255")
    parser.add_argument("--mean", metavar="M[,M,M]", help="then subtract this")
    parser.add_argument("--std", metavar="S[,S,S]", help="then divide by this")
    options = parser.parse_args(arguments)
    if options.golden == bool(options.files):
        parser.error("expected one file for each input, or --golden")
    if options.threads < 1 or options.top < 1:
        parser.error("--threads and --top: expected 1 or more")
    return options


def _describe(tensor: Dict[str, Any]) -> str:
    shape = "x".join(str(size) for size in tensor["shape"]) or "scalar"
    parts = [f"{_clean(tensor['name'])}: {tensor['dtype']} {shape}"]
    parts += [str(tensor[key]) for key in ("kind", "meaning", "layout") if tensor.get(key)]
    if tensor.get("range"):
        lowest, highest = tensor["range"]
        parts.append(f"{lowest:g} to {highest:g}")
    return ", ".join(parts)


def _clean(text: str) -> str:
    """Give a name without what could steer a terminal."""
    return "".join(each if each.isprintable() else "?" for each in str(text))[:200]


def _import_runtime() -> Tuple[Any, Any]:
    """Import numpy and a TFLite runtime: the deployed one for this Python, else the installed."""
    tag = f"-cp{sys.version_info[0]}{sys.version_info[1]}-"
    # ROOT/bundles/NAME/releases/RELEASE/example.py on a device. Unpacked elsewhere, that many
    # folders up may be one that anyone writes to.
    names = [each.name for each in HERE.parents]
    sites: List[Path] = []
    if names[:1] == ["releases"] and names[2:3] == ["bundles"]:
        sites = sorted(HERE.parents[3].glob(f"runtimes/*{tag}*/site"), reverse=True)
    sys.path[:0] = [str(site) for site in sites[:1]]
    reasons = []
    try:
        import numpy  # noqa: ICN001, PLC0415 - its path is known only now
    except ImportError as error:
        raise ExampleError(f"numpy cannot be imported: {error}") from error
    for package in ("ai_edge_litert", "tflite_runtime"):
        try:
            module = __import__(package + ".interpreter", fromlist=["Interpreter"])
        # A runtime for another libc or numpy fails while it is imported, in many ways.
        except (ImportError, OSError, AttributeError, RuntimeError, SystemError) as error:  # noqa: PERF203 - two at most
            reasons.append(f"{package}: {error}")
        else:
            return numpy, module.Interpreter
    why = "; ".join(reasons)
    raise ExampleError(
        f"no TFLite runtime can be imported ({why}); `pip install ai-edge-litert`, or push the "
        "bundle with `edgepack push`, which brings one"
    )


def _open_model(make: Any, threads: int) -> Any:
    path = HERE / CONTRACT["model"]
    if not path.is_file():
        raise ExampleError(f"expected the model beside this file, but there is no {path}")
    try:
        interpreter = make(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ExampleError(f"the runtime refused {path.name}: {error}") from error
    for key, details in (
        ("inputs", interpreter.get_input_details()),
        ("outputs", interpreter.get_output_details()),
    ):
        wanted = [each["dtype"] for each in CONTRACT[key]]
        came = [each["dtype"].__name__.rstrip("_") for each in details]
        if wanted != came:
            raise ExampleError(
                f"{path.name} is not the model this file was made for: its {key} are {came}, "
                f"not {wanted}"
            )
    return interpreter


def _run(numpy: Any, interpreter: Any, feeds: Sequence[Any]) -> List[Any]:
    try:
        for detail, feed in zip(interpreter.get_input_details(), feeds):
            interpreter.set_tensor(detail["index"], numpy.ascontiguousarray(feed))
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise ExampleError(f"the model could not be run: {error}") from error
    details = interpreter.get_output_details()
    return [interpreter.get_tensor(detail["index"]) for detail in details]


def _read_feeds(numpy: Any, options: argparse.Namespace) -> List[Any]:
    inputs = CONTRACT["inputs"]
    if options.golden:
        return [_read_golden(numpy, index, each) for index, each in enumerate(inputs)]
    given = _assign(numpy, options.files)
    feeds = []
    missing = []
    for each in inputs:
        if each["name"] in given:
            feeds.append(_read_input(numpy, given[each["name"]], each, options))
        elif each["kind"] == "state":
            zeros = numpy.zeros(each["shape"], dtype=numpy.float32)
            feeds.append(_to_input(numpy, zeros, each))
        else:
            missing.append(_describe(each))
    if missing:
        raise ExampleError("nothing was given for the input " + "; ".join(missing))
    return feeds


def _assign(numpy: Any, files: List[str]) -> Dict[str, Any]:
    """Give what was given for each input: a path, or an array out of an .npz."""
    names = [each["name"] for each in CONTRACT["inputs"]]
    given: Dict[str, Any] = {}
    positional = [name for name in names if not any(f.startswith(name + "=") for f in files)]
    for text in files:
        name = next((each for each in names if text.startswith(each + "=")), None)
        path = Path(text[len(name) + 1 :] if name is not None else text)
        if name is None and path.suffix == ".npz":
            given.update(_read_npz(numpy, path, names))
            continue
        if name is None:
            if not positional:
                raise ExampleError(f"expected {len(names)} files, but got {len(files)}")
            name = positional.pop(0)
        given[name] = path
    return given


def _read_npz(numpy: Any, path: Path, names: List[str]) -> Dict[str, Any]:
    arrays = _load(numpy, path)
    if not hasattr(arrays, "files"):
        raise ExampleError(f"{path}: expected an .npz with one array an input")
    unknown = [each for each in arrays.files if each not in names]
    if unknown:
        listed = ", ".join(_clean(each) for each in names)
        raise ExampleError(f"{path}: expected arrays named {listed}, not {_clean(unknown[0])}")
    try:
        return {name: arrays[name] for name in arrays.files}
    except _DAMAGED as error:
        raise ExampleError(f"{path}: not a numpy file: {error}") from error


def _load(numpy: Any, path: Path) -> Any:
    try:
        # Of a damaged .npz that it opens itself, numpy leaves the file open.
        return numpy.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except _DAMAGED as error:
        raise ExampleError(f"{path}: not a numpy file: {error}") from error


def _read_golden(numpy: Any, index: int, tensor: Dict[str, Any]) -> Any:
    path = HERE / "golden" / f"input-{index:03}.bin"
    values = numpy.frombuffer(path.read_bytes(), dtype=_little(numpy, tensor))
    count = _count(tensor["shape"])
    if values.size < count:
        raise ExampleError(f"{path} is too short for one sample")
    return values[:count].reshape(tensor["shape"])


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _little(numpy: Any, tensor: Dict[str, Any]) -> Any:
    return numpy.dtype(tensor["dtype"]).newbyteorder("<")


def _read_input(
    numpy: Any,
    given: Any,
    tensor: Dict[str, Any],
    options: argparse.Namespace,
) -> Any:
    title = str(given) if isinstance(given, Path) else "the array for " + _clean(tensor["name"])
    if isinstance(given, Path):
        if not given.is_file():
            raise ExampleError(f"{given}: there is no such file")
        suffix = given.suffix.lower()
        if suffix == ".bin":
            return _read_raw(numpy, given, tensor)
        if suffix == ".npy":
            given = _load(numpy, given)
        elif suffix in {".txt", ".csv"}:
            given = _read_text(numpy, given)
        elif tensor["kind"] == "image":
            pixels = _read_picture(numpy, given, tensor)
            return _to_input(numpy, _preprocess(numpy, pixels, tensor, options), tensor)
        else:
            raise ExampleError(
                f"{given}: expected .npy, .npz, .txt, .csv or .bin for the input "
                f"{_describe(tensor)}"
            )
    return _to_input(numpy, _fit(given, tensor, title), tensor)


def _read_raw(numpy: Any, path: Path, tensor: Dict[str, Any]) -> Any:
    data = path.read_bytes()
    count = _count(tensor["shape"])
    dtype = _little(numpy, tensor)
    if len(data) != count * dtype.itemsize:
        raise ExampleError(
            f"{path}: expected {count * dtype.itemsize} bytes for the input {_describe(tensor)}, "
            f"but it has {len(data)}"
        )
    return numpy.frombuffer(data, dtype=dtype).reshape(tensor["shape"])


def _read_text(numpy: Any, path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8").replace(",", " ").split()
        return numpy.array([float(each) for each in text])
    except ValueError as error:
        raise ExampleError(f"{path}: expected numbers: {error}") from error


def _fit(array: Any, tensor: Dict[str, Any], title: str) -> Any:
    """Give an array the input's shape: a batch axis of 1 may be missing, text has none at all."""
    shape = tuple(tensor["shape"])
    if array.dtype.kind not in "fiub":
        raise ExampleError(f"{title}: expected numbers, but got {array.dtype}")
    if array.shape != shape and array.shape != shape[1:] and array.ndim != 1:
        raise ExampleError(
            f"{title}: expected the shape {shape} of the input {_clean(tensor['name'])}, but got "
            f"{array.shape}"
        )
    count = _count(shape)
    if array.size != count:
        raise ExampleError(
            f"{title}: expected {count} numbers for the input {_describe(tensor)}, but got "
            f"{array.size}"
        )
    return array.reshape(shape)


def _to_input(numpy: Any, values: Any, tensor: Dict[str, Any]) -> Any:
    """Bring values to the input's element type; integers of a quantized one stand for numbers."""
    dtype = numpy.dtype(tensor["dtype"])
    if values.dtype == dtype:
        return values
    name = _clean(tensor["name"])
    if values.dtype.kind == "f" and not numpy.isfinite(values).all():
        raise ExampleError(f"input {name}: expected finite numbers")
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = numpy.iinfo(dtype)
    quantization = tensor["quantization"]
    if quantization is not None:
        scale, zero = quantization["scales"][0], quantization["zero_points"][0]
        real = values.astype(numpy.float64) / scale
        whole = numpy.trunc(real + numpy.copysign(0.5, real)) + zero
        return numpy.clip(whole, limits.min, limits.max).astype(dtype)
    whole = numpy.round(values.astype(numpy.float64))
    if numpy.abs(whole - values).max() > 0 or whole.min() < limits.min or whole.max() > limits.max:
        raise ExampleError(
            f"input {name}: expected whole numbers from {limits.min} to {limits.max}, but got "
            f"{values.min():g} to {values.max():g}"
        )
    return values.astype(dtype)


def _read_picture(numpy: Any, path: Path, tensor: Dict[str, Any]) -> Any:
    """Read a picture as (height, width, channels) bytes of the input's size."""
    shape = tensor["shape"]
    if len(shape) == _IMAGE_RANK and tensor["layout"] == "NCHW":
        channels, height, width = shape[1:]
    elif len(shape) == _IMAGE_RANK:
        height, width, channels = shape[1:]
    else:  # gray, without an axis for its channel
        (height, width), channels = shape[-2:], 1
    if channels not in _PICTURE_CHANNELS:
        raise ExampleError(f"{path}: no picture has {channels} channels; give an .npy")
    if _count(shape) != height * width * channels:
        raise ExampleError(
            f"{path}: one picture is not the whole input {_describe(tensor)}; give an .npy"
        )
    try:
        from PIL import Image  # noqa: PLC0415 - many devices have none
    except ImportError:
        pixels = _read_netpbm(numpy, path)
        pixels = _resize(numpy, pixels, height, width)
        return _convert_channels(numpy, pixels, channels)
    try:
        with Image.open(str(path)) as image:
            mode = _PICTURE_CHANNELS[channels]
            # As pictures for calibration were read when the model was packed.
            fitted = image.convert(mode).resize((width, height), _BILINEAR)
            return numpy.asarray(fitted, dtype=numpy.uint8).reshape(height, width, channels)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ExampleError(f"{path}: not a readable picture: {error}") from error


def _read_netpbm(numpy: Any, path: Path) -> Any:
    """Read a binary .ppm (P6) or .pgm (P5), for which nothing needs to be installed."""
    data = path.read_bytes()
    fields: List[bytes] = []
    place = 0
    while len(fields) < 4 and place < len(data):  # noqa: PLR2004 - magic, width, height, maximum
        if data[place : place + 1] == b"#":
            place = data.find(b"\n", place) + 1 or len(data)
        elif data[place : place + 1].isspace():
            place += 1
        else:
            end = place
            while end < len(data) and not data[end : end + 1].isspace():
                end += 1
            fields.append(data[place:end])
            place = end
    is_known = fields[:1] in ([b"P5"], [b"P6"]) and all(each.isdigit() for each in fields[1:])
    if not is_known or len(fields) < 4 or int(fields[3]) != _MAXIMUM_PIXEL:  # noqa: PLR2004
        raise ExampleError(
            f"{path}: without Pillow, expected a binary .ppm or .pgm of 8 bits; other pictures "
            "need `pip install pillow`"
        )
    width, height = int(fields[1]), int(fields[2])
    channels = 3 if fields[0] == b"P6" else 1
    pixels = numpy.frombuffer(data[place + 1 :], dtype=numpy.uint8)
    if not pixels.size or pixels.size < width * height * channels:
        raise ExampleError(f"{path}: expected {width}x{height} pixels, but it ends early")
    return pixels[: width * height * channels].reshape(height, width, channels)


def _resize(numpy: Any, pixels: Any, height: int, width: int) -> Any:
    """Give a picture another size: averages where it shrinks, the nearest pixel where it grows."""
    for axis, size in ((0, height), (1, width)):
        here = pixels.shape[axis]
        edges = numpy.arange(size + 1) * here // size
        starts, ends = edges[:-1], numpy.maximum(edges[1:], edges[:-1] + 1)
        sums = numpy.concatenate(
            [
                numpy.zeros_like(pixels.take([0], axis=axis), dtype=numpy.float64),
                numpy.cumsum(pixels, axis=axis, dtype=numpy.float64),
            ],
            axis=axis,
        )
        total = sums.take(ends, axis=axis) - sums.take(starts, axis=axis)
        counts = (ends - starts).reshape([-1 if each == axis else 1 for each in range(3)])
        pixels = total / counts
    return numpy.round(pixels).astype(numpy.uint8)


def _convert_channels(numpy: Any, pixels: Any, channels: int) -> Any:
    if pixels.shape[2] == 3 and channels == 1:  # noqa: PLR2004 - colors to gray, ITU-R BT.601
        gray = pixels.astype(numpy.float64) @ numpy.array([0.299, 0.587, 0.114])
        pixels = numpy.round(gray).astype(numpy.uint8)[:, :, numpy.newaxis]
    elif pixels.shape[2] == 1 and channels > 1:
        pixels = numpy.repeat(pixels, 3, axis=2)
    if channels == _IMAGE_RANK:
        opaque = numpy.full((*pixels.shape[:2], 1), _MAXIMUM_PIXEL, dtype=numpy.uint8)
        pixels = numpy.concatenate([pixels, opaque], axis=2)
    return pixels


def _preprocess(
    numpy: Any,
    pixels: Any,
    tensor: Dict[str, Any],
    options: argparse.Namespace,
) -> Any:
    """Give pixels as the model takes them: the contract's preprocessing, layout and shape."""
    values = pixels
    done = tensor["preprocessing"]
    stated = _read_numbers(options)
    if stated is not None:
        if done is not None and done["by"] == "model":
            raise ExampleError("--scale, --mean, --std: the model does that itself")
        done = stated
    if done is None:
        about = _clean(tensor["name"]) + _tell_range(tensor)
        raise ExampleError(
            f"nobody said how pixels become the input {about}: give --scale (1/255 or 1), and "
            "--mean and --std where the network was trained with them; or give an .npy"
        )
    if done["by"] != "model":
        scaled = pixels.astype(numpy.float64) * done["scale"]
        try:
            values = (scaled - numpy.array(done["mean"])) / numpy.array(done["std"])
        except ValueError as error:
            raise ExampleError("--mean and --std: expected 1 number or one a channel") from error
    if tensor["layout"] == "NCHW":
        values = values.transpose(2, 0, 1)
    return values.reshape(tensor["shape"])


def _tell_range(tensor: Dict[str, Any]) -> str:
    if not tensor["range"]:
        return ""
    lowest, highest = tensor["range"]
    return f" (the samples it was packed with hold {lowest:g} to {highest:g})"


def _read_numbers(options: argparse.Namespace) -> Optional[Dict[str, Any]]:
    if options.scale is None and options.mean is None and options.std is None:
        return None
    read = {}
    for key, text in (("scale", options.scale), ("mean", options.mean), ("std", options.std)):
        default = 0.0 if key == "mean" else 1.0
        try:
            read[key] = [_fraction(each) for each in text.split(",")] if text else [default]
        except (ValueError, ZeroDivisionError) as error:
            raise ExampleError(f"--{key}: expected numbers, not {text!r}") from error
    if len(read["scale"]) != 1 or 0.0 in read["std"]:
        raise ExampleError("--scale: expected one number; --std: expected numbers other than 0")
    return {"by": "caller", "scale": read["scale"][0], "mean": read["mean"], "std": read["std"]}


def _fraction(text: str) -> float:
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(above)


def _to_real(numpy: Any, answer: Any, tensor: Dict[str, Any]) -> Any:
    """Give the numbers that the integers of a quantized output stand for."""
    quantization = tensor["quantization"]
    if quantization is None:
        return answer
    shape = [1] * answer.ndim
    if len(quantization["scales"]) > 1:
        shape[quantization["axis"]] = -1
    scale = numpy.array(quantization["scales"]).reshape(shape)
    zero = numpy.array(quantization["zero_points"]).reshape(shape)
    return ((answer.astype(numpy.float64) - zero) * scale).astype(numpy.float32)


def _show(numpy: Any, output: Dict[str, Any], answer: Any, top: int) -> None:
    labels = _read_labels() if output["has_labels"] else []
    print(f"{_clean(output['name'])}: {answer.dtype} {tuple(answer.shape)}")
    meaning, axis = output["meaning"], output["class_axis"]
    if meaning == "class_id":
        ids, counts = numpy.unique(answer, return_counts=True)
        for place in numpy.argsort(-counts, kind="stable")[:top]:
            share = "" if answer.size == 1 else "%5.1f%%  " % (100.0 * counts[place] / answer.size)
            print("  " + share + _label(labels, int(ids[place])))
        return
    if answer.size == 0:
        return
    if axis is not None and answer.ndim == 2 and answer.shape[axis] > 1:  # noqa: PLR2004 - classes
        row = answer.reshape(-1, answer.shape[axis])[0]
        for place in numpy.argsort(-row, kind="stable")[:top]:
            value = f"{row[place]:10.4f}"
            if meaning in {"probabilities", "scores"}:
                value = "%6.2f%%" % (100.0 * row[place])
            print(f"  {value}  {_label(labels, int(place))}")
        return
    finite = answer[numpy.isfinite(answer)] if answer.dtype.kind == "f" else answer
    if finite.size < answer.size:
        print(f"  {answer.size - finite.size} of {answer.size} values are not finite")
    if finite.size:
        print(f"  min {finite.min():g}, max {finite.max():g}, mean {finite.mean():g}")
    if answer.size <= _FEW:
        print("  " + " ".join(f"{value:g}" for value in answer.reshape(-1)))


def _label(labels: List[str], index: int) -> str:
    name = labels[index] if 0 <= index < len(labels) else ""
    return f"{index}  {name}".rstrip()


def _read_labels() -> List[str]:
    path = HERE / CONTRACT["labels"]
    return [_clean(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
