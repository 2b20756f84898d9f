"""Push a model again, with another head, with other labels: EdgePack, `rsync -z` and scp.

    python -m benchmarks.deltas [--rounds N] [--slow-rounds N]

EfficientNet-Lite0 comes by scripts/fetch-models; its head is retrained by adding noise to the
weights of the last layer, as float32 and as int8 weights. An SSH server of its own is reached
over loopback, and over a link with a round trip of 50 ms that carries 20 Mbit/s. Each round
starts with an empty folder and goes through the pushes in order, each with all programs in
turns, over connections made anew.

EdgePack's push is whole but for the runtime and the golden check: hold the device, look, send,
sync, rename, switch, read all of it back. rsync and scp copy the release's files over the last
ones, in place: an interrupted one leaves a mixture. "sent" is payload, of files or parts of
files; "wire" is what went over the connection of it: compressed, or rsync's own count.

Bars: an unchanged push sends 0 payload bytes and takes at most 0.3x of the first; a head-only
retrain sends at most 1.1x the bytes of the changed tensors and 64 KiB.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_quantizer import quantizer
from ai_edge_quantizer import recipe as recipes

from benchmarks.push_rate import REPOSITORY, slow_link
from edgepack.bundle.archive import Bundle
from edgepack.bundle.golden import make_golden
from edgepack.cache import Cache, cache_directory
from edgepack.device.store.deploy import push_bundle
from edgepack.device.store.layout import resolve_root
from edgepack.device.store.lock import LockOptions, hold_device
from edgepack.device.wire.connect import ConnectOptions, open_device
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.importers import ImportOptions, import_model
from edgepack.model import Model, read_model
from tests.fixtures.bundle import write_digits_bundle

LINKS = ((0, None), (50, 20))
PUSHES = ("first", "unchanged", "head retrained", "labels changed")
MOST_OF_FIRST = 0.3
MOST_OF_CHANGED = 1.1
ALLOWED_BYTES = 64 * 1024
NUM_CLASSES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What one push took.

    Attributes:
        seconds: its wall time.
        payload_bytes: of files or parts of them that were sent; None where it is not told.
        wire_bytes: that went over the connection for them.
        how: they were compressed.
    """

    seconds: float
    payload_bytes: int | None
    wire_bytes: int | None
    how: str = ""


Push = Callable[[Bundle, Path, Path], Sent]
Taken = dict[tuple[str, str], list[Sent]]


def push_with_edgepack(bundle: Bundle, folder: Path, config: Path) -> Sent:
    """Connect, and make the bundle current."""
    start = time.perf_counter()
    with open_device("quickstart", options=ConnectOptions(ssh_config=config)) as device:
        root = resolve_root(device, f"{folder}/edgepack")
        options = LockOptions(purpose="push", wait_seconds=0)
        with hold_device(device, root=root, options=options) as held:
            done = push_bundle(held, bundle, root=root, fence=held.fence)
    return Sent(
        seconds=time.perf_counter() - start,
        payload_bytes=done.sent_bytes,
        wire_bytes=done.wire_bytes,
        how=done.codec or "",
    )


def push_with_rsync(bundle: Bundle, folder: Path, config: Path) -> Sent:
    """Copy the release's files over those of the last push."""
    source = unpacked(bundle)
    start = time.perf_counter()
    done = subprocess.run(
        (
            *("rsync", "-rz", "--checksum", "--delete", "--stats", "-e", f"ssh -F {config}"),
            *(f"--rsync-path={shutil.which('rsync')}", f"{source}/"),
            f"quickstart:{folder}/rsync/",
        ),
        check=True,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    told = {
        name: int(number.replace(",", ""))
        for name, number in re.findall(r"^([A-Z][a-z ]+): ([\d,]+)", done.stdout, re.MULTILINE)
    }
    return Sent(
        seconds=seconds,
        payload_bytes=told["Literal data"],
        wire_bytes=told["Total bytes sent"],
        how="zlib or zstd",
    )


def push_with_scp(bundle: Bundle, folder: Path, config: Path) -> Sent:
    """Copy the release's files."""
    source = unpacked(bundle)
    start = time.perf_counter()
    target = f"quickstart:{folder}/scp"
    subprocess.run(("scp", "-q", "-r", "-F", config, f"{source}/.", target), check=True)
    num_bytes = sum(each.num_bytes for each in bundle.files())
    return Sent(seconds=time.perf_counter() - start, payload_bytes=num_bytes, wire_bytes=num_bytes)


PROGRAMS: Mapping[str, Push] = {
    "EdgePack": push_with_edgepack,
    "rsync -z": push_with_rsync,
    "scp": push_with_scp,
}


def unpacked(bundle: Bundle) -> Path:
    """Give a folder with the release's files."""
    folder = bundle.path.with_suffix("")
    if not folder.exists():
        for record in bundle.files():
            path = folder / record.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bundle.read(record.path))
    return folder


def fetch_efficientnet() -> Model:
    """Give EfficientNet-Lite0 as float32."""
    fetched = subprocess.run(
        (sys.executable, str(REPOSITORY / "scripts" / "fetch-models"), "efficientnet-lite0"),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    imported = import_model(
        Path(fetched.stdout.strip()),
        options=ImportOptions(),
        cache=Cache(root=cache_directory()),
        on_progress=lambda text: print(text, file=sys.stderr, flush=True),
    )
    return imported.model


def retrain_head(model: Model) -> Model:
    """Give the model with noise on the weights and biases of its last layer."""
    tree = read_flatbuffer(model.data)
    chance = np.random.default_rng(1)
    for tensor in tree.subgraphs[0].tensors:
        buffer = tree.buffers[tensor.buffer]
        if buffer.data is None or not len(tensor.shape) or tensor.shape[0] != NUM_CLASSES:
            continue
        values = np.frombuffer(bytes(buffer.data), dtype=np.float32)
        noise = chance.normal(0, 0.1 * values.std(), values.shape)
        buffer.data = (values + noise).astype(np.float32).view(np.uint8)
    return read_model(write_flatbuffer(tree))


def quantize(model: Model) -> Model:
    """Give the model with int8 weights, a scale for each channel."""
    tool = quantizer.Quantizer(model.data)
    tool.load_quantization_recipe(recipes.dynamic_wi8_afp32())
    done = tool.quantize(enable_progress_bar=False, enable_progress_report=False)
    return read_model(bytes(done.quantized_model))


def changed_tensor_bytes(before: Model, after: Model) -> int:
    """Give the bytes of the buffers that differ."""
    pairs = zip(
        read_flatbuffer(before.data).buffers, read_flatbuffer(after.data).buffers, strict=True
    )
    return sum(
        len(new.data)
        for old, new in pairs
        if new.data is not None and bytes(old.data) != bytes(new.data)
    )


def write_bundles(folder: Path, float_models: tuple[Model, Model], kind: str) -> list[Bundle]:
    """Give the bundle of each push, in order."""
    models = [quantize(each) if kind == "int8 weights" else each for each in float_models]
    (spec,) = models[0].signature.inputs
    chance = np.random.default_rng(2)
    feeds = tuple((chance.random(spec.shape, dtype=np.float32),) for _ in range(4))
    bundles: list[Bundle] = []
    for number, (index, labels) in enumerate(((0, "a"), (1, "a"), (1, "b"))):
        bundles.append(
            write_digits_bundle(
                folder / f"{kind}-{number}.edgepack".replace(" ", "-"),
                version=f"{index + 1}.0",
                model=models[index],
                golden=make_golden(float_models[index], models[index], feeds),
                extra_files={"classes.txt": f"class {labels}\n".encode() * NUM_CLASSES},
            )
        )
    first, retrained, relabeled = bundles
    return [first, first, retrained, relabeled]


def measure(bundles: list[Bundle], folder: Path, config: Path, num_rounds: int) -> Taken:
    """Give what each program took for each push, one value a round."""
    taken: Taken = {(push, name): [] for push in PUSHES for name in PROGRAMS}
    for round_ in range(num_rounds + 1):
        where = folder / f"round-{round_}"
        for name in ("edgepack", "rsync", "scp"):
            (where / name).mkdir(parents=True)
        for push, bundle in zip(PUSHES, bundles, strict=True):
            for name, program in PROGRAMS.items():
                sent = program(bundle, where, config)
                if round_:  # the first round warms all sides up
                    taken[(push, name)].append(sent)
        shutil.rmtree(where)
    return taken


def print_table(title: str, taken: Taken) -> None:
    """Print the medians, in MB and seconds."""
    print(f"\n{title}\n")
    print("| push | program | sent MB | wire MB | compressed | seconds |")
    print("|---|---|---:|---:|---|---:|")
    for (push, name), each in taken.items():
        seconds = statistics.median(sent.seconds for sent in each)
        amounts = [
            "" if amount is None else f"{amount / 1e6:.3f}"
            for amount in (each[-1].payload_bytes, each[-1].wire_bytes)
        ]
        print(f"| {push} | {name} | {' | '.join(amounts)} | {each[-1].how} | {seconds:.3f} |")


def missed_bars(taken: Taken, changed_bytes: int) -> list[str]:
    """Say which bars were missed."""
    first, unchanged, head = (taken[(push, "EdgePack")] for push in PUSHES[:3])
    ratio = statistics.median(
        again.seconds / once.seconds for once, again in zip(first, unchanged, strict=True)
    )
    sent_bytes = max(each.payload_bytes or 0 for each in head)
    allowed_bytes = MOST_OF_CHANGED * changed_bytes + ALLOWED_BYTES
    print(f"\n- unchanged takes {ratio:.2f}x of the first")
    print(f"- retrained sends {sent_bytes} bytes, {changed_bytes} of them changed tensors")
    missed = [] if ratio <= MOST_OF_FIRST else [f"unchanged: {ratio:.2f}x of the first"]
    if any(each.payload_bytes for each in unchanged):
        missed.append("unchanged: something was sent")
    if sent_bytes > allowed_bytes:
        missed.append(f"retrained: {sent_bytes} bytes sent, {allowed_bytes:.0f} allowed")
    return missed


def main() -> int:
    """Print the tables; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="over loopback (default: 5)")
    parser.add_argument("--slow-rounds", type=int, default=2, help="over the slow link")
    given = parser.parse_args()
    if shutil.which("rsync") is None:
        sys.exit("expected rsync to compare with: apt install rsync")
    server_script = REPOSITORY / "scripts" / "loopback-sshd"
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder, server = Path(name), Path(name, "server")
        server.mkdir()
        model = fetch_efficientnet()
        models = (read_model(write_flatbuffer(read_flatbuffer(model.data))), retrain_head(model))
        subprocess.run((server_script, "start", server), check=True)
        try:
            for kind in ("float32", "int8 weights"):
                bundles = write_bundles(folder, models, kind)
                packed = [read_model(each.read("model.tflite")) for each in bundles[1:3]]
                changed_bytes = changed_tensor_bytes(*packed)
                for milliseconds, megabits in LINKS:
                    rounds = given.slow_rounds if milliseconds else given.rounds
                    config = server / "ssh_config"
                    with slow_link(config, milliseconds, megabits=megabits) as leading:
                        taken = measure(bundles, folder, leading, rounds)
                    link = f"{milliseconds} ms, {megabits} Mbit/s" if milliseconds else "loopback"
                    load = os.getloadavg()[0]
                    print_table(f"{kind}, {link}, {rounds} rounds, load {load:.1f}", taken)
                    missed += missed_bars(taken, changed_bytes)
        finally:
            subprocess.run((server_script, "stop", server), check=True)
    print("", *[f"missed: {each}" for each in missed], sep="\n", flush=True)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
