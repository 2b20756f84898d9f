"""What there is in the zoo, and making it: in the toolchains, or fetched."""

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runs import Source

from edgepack.cache import cache_directory, digest_parts
from edgepack.toolchains import ensure_toolchain

ZOO = Path(__file__).parent
GENERATORS = ("real_models.py", "onnx_models.py", "keras_models.py", "torch_models.py")
# What the generators need beside a toolchain; put beside it without dependencies, which it has.
COMPANY = {
    "onnx_models.py": (),
    "keras_models.py": ("tf2onnx==1.17.0", "onnx==1.20.1", "ml_dtypes==0.5.4"),
    "torch_models.py": (
        *("torchvision==0.28.0", "pillow==12.0.0"),
        *("onnx==1.20.1", "onnxscript==0.6.2", "onnx_ir==1.1.0", "ml_dtypes==0.5.4"),
    ),
    "real_models.py": (),
}
FETCHED = {
    "ppocr-angle-classifier": ("--input-shape", "x=1,3,48,192"),
    "ppocr-detector": ("--input-shape", "x=1,3,320,320"),
    "ppocr-recognizer": ("--input-shape", "x=1,3,48,320"),
    "magika": ("--input-shape", "bytes=1,2048"),
    "efficientnet-lite0": (),
    "wake-words": (),
}
GENERATE_SECONDS = 3600


@functools.cache
def list_sources(*, with_fetched: bool) -> list[Source]:
    """Give every source of every model."""
    sources = []
    for each in generated():
        for file, arguments in each["files"].items():
            placed = tuple(text.replace("{zoo}", str(ZOO)) for text in arguments)
            sources.append(
                Source(
                    case=each["name"],
                    toolchain=each["toolchain"],
                    file=file.replace("{zoo}", str(ZOO)),
                    arguments=placed,
                )
            )
    for name, arguments in FETCHED.items():
        paths = fetch([name]) if with_fetched else [Path(f"{name}.onnx")]
        sources += [
            Source(
                case=name if len(paths) == 1 else f"{name}-{path.stem}",
                toolchain="onnx",
                file=str(path),
                arguments=arguments,
            )
            for path in paths
        ]
    return sources


@functools.cache
def generated() -> list[dict[str, Any]]:
    """Give the list of each generator; this needs no toolchain."""
    listed = []
    for name in GENERATORS:
        done = subprocess.run(
            [sys.executable, str(ZOO / name), "--list"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        listed += [{**json.loads(line), "generator": name} for line in done.stdout.splitlines()]
    return listed


def fetch(names: Iterable[str]) -> list[Path]:
    """Fetch real models; they are kept in the cache."""
    done = subprocess.run(
        [sys.executable, str(ZOO.parent / "fetch-models"), *names],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [Path(line) for line in done.stdout.splitlines()]


def make(
    group: list[Source],
    details: dict[str, dict[str, Any]],
    models: Path,
    pythons: dict[str, str],
) -> dict[str, str]:
    """Make the models of a group that are not there; give why some could not be made."""

    def lacking() -> list[str]:
        return sorted(
            {
                source.case
                for source in group
                if source.case in details
                and ":" not in source.file
                and not (models / source.case / source.file).exists()
            }
        )

    missing = lacking()
    if not missing:
        return {}
    python = pythons.get(group[0].toolchain) or str(
        ensure_toolchain(group[0].toolchain, on_progress=say).python
    )
    models.mkdir(parents=True, exist_ok=True)
    said = {case: generate(missing, details, models, python) for case in missing[:1]}
    if len(missing) > 1:
        # One that cannot be made stops those after it.
        said |= {case: generate([case], details, models, python) for case in lacking()}
    return {
        source.key: said[source.case]
        for source in group
        if source.case in said and source.case in lacking()
    }


def generate(
    cases: list[str], details: dict[str, dict[str, Any]], models: Path, python: str
) -> str:
    """Make models in one process of their toolchain; give its last line."""
    generator = details[cases[0]]["generator"]
    packages = sorted({name for case in cases for name in details[case].get("packages", ())})
    wheels = [str(path) for path in (fetch(packages) if packages else [])]
    say(f"making {', '.join(cases)}")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    environment["PYTHONPATH"] = str(company(generator, python))
    done = subprocess.run(
        [python, str(ZOO / generator), str(models), *cases, *wheels],
        check=False,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=GENERATE_SECONDS,
    )
    return (done.stdout.strip().splitlines() or [""])[-1]


def company(generator: str, python: str) -> Path:
    """Give a folder of packages that a generator needs beside its toolchain."""
    pins = COMPANY[generator]
    key = digest_parts("zoo", pins=" ".join(pins), python=python)[:12]
    folder = cache_directory() / "model-support" / f"company-{key}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_suffix(".new")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        if pins:
            say(f"installing {', '.join(pins)}")
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*install, "--target", str(temporary), *pins], check=True)
        temporary.rename(folder)
    return folder


def say(text: str) -> None:
    """Tell what is being done."""
    print(text, file=sys.stderr, flush=True)
