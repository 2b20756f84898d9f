"""Calibration and evaluation data, checked against the source model's inputs."""

from edgepack.data.generate import InputHint, InputRole, Range, generate_samples
from edgepack.data.images import ColorOrder, ImageLayout, ImagePreprocessing, ResizeRule
from edgepack.data.load import load_samples
from edgepack.data.samples import Samples, halve_samples, make_samples, split_samples

__all__ = [
    "ColorOrder",
    "ImageLayout",
    "ImagePreprocessing",
    "InputHint",
    "InputRole",
    "Range",
    "ResizeRule",
    "Samples",
    "generate_samples",
    "halve_samples",
    "load_samples",
    "make_samples",
    "split_samples",
]
