#!/usr/bin/env python3
"""Make PyTorch models with random weights; run by scripts/model-support in the pytorch toolchain.

    torch_models.py --list             one line of JSON a model: its name and files
    torch_models.py FOLDER NAME...     writes FOLDER/NAME/FILE for each file of the list

The weights come from a fixed seed; normalization layers get the statistics of a batch.
torchvision's architectures are taken when torchvision is installed beside torch.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20
SIDE = 64
BATCH = 8
IMAGE_RANK = 3
NUM_CLASSES = 10
OPSET = 17
PT2 = ("model.pt2",)
BOTH = ("model.pt2", "model.onnx")
ALL = ("model.pt2", "model.pt", "model.onnx", "dynamo.onnx")

# Libraries of operators live as long as something refers to them.
LIBRARIES: list[Any] = []
# Architecture of torchvision, side of its input, files.
ARCHITECTURES = {
    "mobilenet_v2": (SIDE, ALL),
    "mobilenet_v3_small": (SIDE, ALL),
    "mobilenet_v3_large": (SIDE, BOTH),
    "resnet18": (SIDE, ALL),
    "resnet50": (SIDE, BOTH),
    "wide_resnet50_2": (SIDE, PT2),
    "resnext50_32x4d": (SIDE, BOTH),
    "squeezenet1_1": (SIDE, BOTH),
    "shufflenet_v2_x1_0": (SIDE, BOTH),
    "mnasnet0_5": (SIDE, BOTH),
    "densenet121": (SIDE, BOTH),
    "googlenet": (SIDE, BOTH),
    "inception_v3": (96, BOTH),
    "efficientnet_b0": (SIDE, BOTH),
    "efficientnet_v2_s": (SIDE, BOTH),
    "regnet_y_400mf": (SIDE, BOTH),
    "regnet_x_400mf": (SIDE, BOTH),
    "convnext_tiny": (SIDE, BOTH),
    "vit_b_16": (SIDE, BOTH),
    "swin_t": (SIDE, BOTH),
    "swin_v2_t": (SIDE, BOTH),
    "maxvit_t": (224, BOTH),
    # 224: its pooling to 6x6 has no form in ONNX for maps that are smaller.
    "alexnet": (224, BOTH),
    "segmentation.lraspp_mobilenet_v3_large": (SIDE, BOTH),
    "segmentation.deeplabv3_mobilenet_v3_large": (SIDE, BOTH),
    "segmentation.fcn_resnet50": (SIDE, BOTH),
    "video.r3d_18": (SIDE, PT2),
}

# Function of torch_networks.py, files.
FUNCTION = "{zoo}/torch_networks.py:"
NETWORKS = {
    "lstm": ALL,
    "gru": ALL,
    "bidirectional": BOTH,
    "stateful-lstm": BOTH,
    "transformer": ALL,
    "unet": ALL,
    "detector": ALL,
    "depthwise-separable": ALL,
    "convolution-1d": BOTH,
    "convolution-3d": BOTH,
    "embeddings": BOTH,
    "autoencoder": BOTH,
    "squeeze-excite": ALL,
    "pixel-shuffle": BOTH,
    "several-inputs": ALL,
    "normalizations": BOTH,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A model of the zoo.

    Attributes:
        build: gives the module and its example inputs.
        files: written by their names.
    """

    build: Callable[[], tuple[Any, tuple[Any, ...]]]
    files: tuple[str, ...]


def architecture(name: str) -> Case:
    """Give one of torchvision's architectures."""
    side, files = ARCHITECTURES[name]

    def build() -> tuple[Any, tuple[Any, ...]]:
        import torch  # noqa: PLC0415 - of the toolchain
        import torch_networks  # noqa: PLC0415 - needs torch

        models = import_torchvision().models
        options: dict[str, Any] = {"weights": None, "num_classes": NUM_CLASSES}
        family, _, bare = name.rpartition(".")
        if family == "segmentation":
            options["weights_backbone"] = None
        if bare in {"googlenet", "inception_v3"}:
            options |= {"aux_logits": False, "init_weights": False}
        if bare == "vit_b_16":
            options["image_size"] = side
        shape = (1, 3, 4, side, side) if family == "video" else (1, 3, side, side)
        net = models.get_model(bare, **options)
        if family == "segmentation":
            net = torch_networks.first_output(net)
        return net, (torch.rand(shape),)

    return Case(build=build, files=files)


def network(name: str) -> Case:
    """Give one of the networks written here; it is also converted from its function."""
    function = name.replace("-", "_")

    def build() -> tuple[Any, tuple[Any, ...]]:
        import torch_networks  # noqa: PLC0415 - needs torch

        made: tuple[Any, tuple[Any, ...]] = getattr(torch_networks, function)()
        return made

    files = NETWORKS[name]
    return Case(build=build, files=(*files, f"{FUNCTION}{function}") if files is ALL else files)


def import_torchvision() -> Any:  # noqa: ANN401 - a module without types
    """Import torchvision, whose wheel may be for another build of torch.

    0.28 from the package index has operators built for CUDA. Without them its import fails
    where it describes them; none of the architectures here calls one.
    """
    import torch  # noqa: PLC0415 - of the toolchain

    try:
        import torchvision  # noqa: PLC0415 - of the toolchain's company
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
        for module in [each for each in sys.modules if each.startswith("torchvision")]:
            del sys.modules[module]
        declare_operators(torch)
        import torchvision  # noqa: PLC0415 - a second time
    return torchvision


def declare_operators(torch: Any) -> None:  # noqa: ANN401 - a module without types
    """Declare torchvision's operators, without a kernel, so that they can be described."""
    box = "Tensor input, Tensor rois, float scale, int height, int width"
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        f"roi_align({box}, int ratio, bool aligned) -> Tensor",
        f"roi_pool({box}) -> (Tensor, Tensor)",
        f"ps_roi_align({box}, int ratio) -> (Tensor, Tensor)",
        f"ps_roi_pool({box}) -> (Tensor, Tensor)",
    ):
        library.define(schema)
    LIBRARIES.append(library)


CASES = {
    f"torch-{name.rpartition('.')[2].replace('_', '-')}": architecture(name)
    for name in ARCHITECTURES
} | {f"torch-{name}": network(name) for name in NETWORKS}


def main() -> int:
    """List the models, or write those named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="list the models")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    if given.list:
        for name, case in CASES.items():
            print(
                json.dumps(
                    {"name": name, "toolchain": "pytorch", "files": dict.fromkeys(case.files, ())}
                )
            )
        return 0
    warnings.simplefilter("ignore")  # of exporters; what they write is judged by parity
    for name in given.names:
        write_case(CASES[name], given.folder / name)
        print(f"wrote {name}", file=sys.stderr, flush=True)
    return 0


def write_case(case: Case, folder: Path) -> None:
    """Build a module, settle its weights and write its files."""
    import torch  # noqa: PLC0415 - of the toolchain

    torch.manual_seed(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    net, example = case.build()
    settle(net, example)
    for name in (each for each in case.files if ":" not in each):
        path = folder / name
        if path.suffix == ".pt2":
            torch.export.save(torch.export.export(net, example), path)
        elif path.suffix == ".pt":
            torch.jit.trace(net, example, check_trace=False).save(path)
        else:
            names = [f"x{index}" for index in range(len(example))]
            # The exporter of old writes one file of the opset asked for; the new one chooses.
            extra = {"dynamo": True} if path.stem == "dynamo" else {"dynamo": False}
            version = {} if path.stem == "dynamo" else {"opset_version": OPSET}
            torch.onnx.export(net, example, str(path), input_names=names, **extra, **version)


def varied(example: Any) -> Any:  # noqa: ANN401 - a torch.Tensor
    """Give a batch that differs in level and contrast, and half of it smooth, as pictures do.

    Plain noise is alike in every sample: statistics of it let other inputs grow layer by layer.
    """
    import torch  # noqa: PLC0415 - of the toolchain

    shape = example.shape[1:]
    batch = torch.randn(BATCH, *shape)
    if len(shape) == IMAGE_RANK:
        coarse = torch.randn(BATCH // 2, shape[0], 4, 4)
        smooth = torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
        batch[: BATCH // 2] = smooth + 0.2 * batch[: BATCH // 2]
    levels = torch.linspace(-1, 1, BATCH).reshape(-1, *[1] * len(shape))
    return levels + batch * torch.linspace(0.3, 1.5, BATCH).reshape(levels.shape)


def settle(net: Any, example: tuple[Any, ...]) -> None:  # noqa: ANN401 - a torch.nn.Module
    """Give normalization layers plausible parameters and the statistics of a batch."""
    import torch  # noqa: PLC0415 - of the toolchain
    from torch import nn  # noqa: PLC0415 - as above

    norms = [each for each in net.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001 - the only name of all ranks' base
    with torch.no_grad():
        for name, weight in net.named_parameters():
            # ConvNeXt scales its blocks by 1e-6 at first: they would not take part.
            if name.endswith("layer_scale"):
                weight.uniform_(0.5, 1.5)
            # The head of torchvision's vision transformers is zero at first: no answer at all.
            elif weight.ndim > 1 and not weight.any():
                weight.normal_(0.0, weight.shape[-1] ** -0.5)
        for each in norms:
            if each.affine:
                each.weight.uniform_(0.5, 1.5)
                each.bias.normal_(0.0, 0.1)
            each.momentum = None  # the mean over all batches seen, of which there is one
        if norms:
            net.train()
            net(*(varied(each) if each.is_floating_point() else each for each in example))
    net.eval()


if __name__ == "__main__":
    raise SystemExit(main())
