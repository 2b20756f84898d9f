"""The child of `edgepack.optimize.quantize`: runs ai-edge-quantizer. Argument: FOLDER.

FOLDER holds `model.tflite` (with a signature), `request.json` and, for static schemes,
`feeds`; it gets `quantized.tflite` and the answer. When the quantizer raises, this process
ends, and the answer says what was raised and at which op.
"""

import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from edgepack.child import read_arrays, write_answer


def quantize(folder: Path) -> None:
    """Quantize the model of a folder."""
    from ai_edge_quantizer import quantizer  # noqa: PLC0415 - 0.6 s, and only this child needs it

    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    data = (folder / "model.tflite").read_bytes()
    tool = quantizer.Quantizer(data)
    tool.load_quantization_recipe(rules(request))
    statistics = None
    if request["inputs"] is not None:
        statistics = _calibrate(data, tool, request, folder / "feeds")
    result = tool.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    (folder / "quantized.tflite").write_bytes(bytes(result.quantized_model))


def rules(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Give ai-edge-quantizer's rules for a request, of which the last fitting one holds."""
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe_manager  # noqa: PLC0415 - as above

    manager = recipe_manager.RecipeManager()
    names = qtyping.TFLOperationName
    everything = {"regex": ".*", "operation_name": names.ALL_SUPPORTED}
    granularity = qtyping.QuantGranularity(request["granularity"].upper())
    match request["scheme"]:
        case "float16":
            manager.add_quantization_config(
                **everything,
                op_config=qtyping.OpQuantizationConfig(
                    weight_tensor_config=qtyping.TensorQuantizationConfig(
                        num_bits=16, dtype=qtyping.TensorDataType.FLOAT
                    ),
                    compute_precision=qtyping.ComputePrecision.FLOAT,
                    explicit_dequantize=True,
                ),
                algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
            )
        case "dynamic_range":
            manager.add_dynamic_config(**everything, num_bits=8, granularity=granularity)
        case "weight_only_int8":
            manager.add_weight_only_config(**everything, num_bits=8, granularity=granularity)
        case "int8" | "int16x8" as scheme:
            manager.add_static_config(
                **everything,
                activation_num_bits=8 if scheme == "int8" else 16,
                weight_num_bits=8,
                weight_granularity=granularity,
            )
            if request["interface"] == "float":
                # The interface counts as two ops of its own; left alone, they stay in float
                # and the quantizer puts QUANTIZE and DEQUANTIZE behind and before them.
                for side in (names.INPUT, names.OUTPUT):
                    manager.add_quantization_config(
                        ".*", side, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
                    )
    for op in request["float_ops"]:
        manager.add_quantization_config(
            ".*", names(op), algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
        )
    recipe: list[dict[str, Any]] = manager.get_quantization_recipe()
    return recipe


def _calibrate(data: bytes, tool: Any, request: dict[str, Any], feeds: Path) -> Any:  # noqa: ANN401 - untyped library
    from ai_edge_quantizer import calibrator, recipe_manager  # noqa: PLC0415 - as above
    from ai_edge_quantizer.utils import qsv_utils  # noqa: PLC0415 - as above

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(tool.get_quantization_recipe())
    # The quantizer's own choice is a moving average of each sample's extremes, whose result
    # depends on the samples' order and cuts off what later ones reach: 18 dB instead of 40 on
    # a digits network (ai-edge-quantizer 0.10). One thread: sums in one order, same bytes.
    calibration = calibrator.Calibrator(
        data,
        num_threads=1,
        mode=calibrator.CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS,
        qsv_update_func=qsv_utils.min_max_update,
    )
    # Variable tensors are reset after each call, resource variables never (ai-edge-quantizer
    # 0.10): one call a sample, or one for a whole stream, as when the model is run.
    samples = _named(feeds, request["inputs"])
    for part in [list(samples)] if request["stream"] else ([sample] for sample in samples):
        calibration.calibrate({request["signature"]: part}, manager)
    return calibration.get_model_qsvs()


def _named(feeds: Path, inputs: list[str]) -> Iterator[dict[str, Any]]:
    arrays = read_arrays(feeds)
    for first in arrays:
        yield {inputs[0]: first, **{name: next(arrays) for name in inputs[1:]}}


def _answer_with_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Answer with what was raised and at which op, as `sys.excepthook`.

    ai-edge-quantizer 0.10 seldom names the op in its messages; its loops over the ops, in
    calibration and in quantization, keep the op's name in the variable `op_key`.
    """
    op = None
    for frame, _ in traceback.walk_tb(trace):
        found = frame.f_locals.get("op_key")
        op = str(getattr(found, "value", found)) if found is not None else op
    message = f"{kind.__name__}: {error}"
    write_answer(Path(sys.argv[1]), {"error": {"message": message, "op": op}})
    traceback.print_exception(kind, error, trace)


if __name__ == "__main__":
    sys.excepthook = _answer_with_error
    target = Path(sys.argv[1])
    quantize(target)
    write_answer(target, {"ok": {}})
