"""Push 100 MB over SSH with EdgePack and with OpenSSH's scp, interleaved.

    python -m benchmarks.push_rate

Starts an SSH server of its own on a loopback port, and reaches it without delay and over a
link with a round trip of 50 ms (`benchmarks/slow_link.py`, all sides alike). Connections are
made anew for each transfer. Bars, by the medians of the paired ratios, at both:

- The transfer, which is what scp does and the device hashing what it stored, has at least 0.9x
  the rate of scp.
- A whole push has at least 0.9x the rate of scp followed by what makes a copy as sure: `sync` and
  `sha256sum` of it over ssh. A push is more: hold the device, see what it has, send what is
  missing, sync, rename, make it current, read all of it back through `current`, let go.

The runtime and the golden check are left out.
"""

import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgepack.bundle.archive import Bundle
from edgepack.device.store.deploy import push_bundle
from edgepack.device.store.layout import resolve_root
from edgepack.device.store.lock import LockOptions, hold_device
from edgepack.device.wire.connect import ConnectOptions, open_device
from tests.fixtures.bundle import write_digits_bundle

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_BYTES = 100_000_000
NUM_ROUNDS = 9
ROUND_TRIPS_MS = (0, 50)
LEAST_RATIO = 0.9
LABELS = ("transfer, verified", "whole push", "scp", "scp, sync, sha256sum")


def send_with_edgepack(bundle: Bundle, target: Path, config: Path) -> float:
    """Connect, upload, compare the device's digest; give the seconds."""
    start = time.perf_counter()
    with open_device("quickstart", options=ConnectOptions(ssh_config=config)) as device:
        stored = device.upload(bundle.path, str(target), timeout_seconds=120)
    seconds = time.perf_counter() - start
    if stored != bundle.sha256:
        sys.exit("the device stored something else")
    return seconds


def push_with_edgepack(bundle: Bundle, root: Path, config: Path) -> float:
    """Connect, and make the bundle current; give the seconds."""
    start = time.perf_counter()
    with open_device("quickstart", options=ConnectOptions(ssh_config=config)) as device:
        folder = resolve_root(device, str(root))
        options = LockOptions(purpose="push", wait_seconds=0)
        with hold_device(device, root=folder, options=options) as held:
            deployment = push_bundle(held, bundle, root=folder, fence=held.fence)
    seconds = time.perf_counter() - start
    if deployment.sent_bytes < NUM_BYTES:
        sys.exit("something was there already")
    return seconds


def push_with_scp(source: Path, target: Path, config: Path) -> float:
    """Copy with scp; give the seconds."""
    start = time.perf_counter()
    argv = ("scp", "-q", "-F", str(config), str(source), f"quickstart:{target}")
    subprocess.run(argv, check=True)
    return time.perf_counter() - start


def push_with_scp_surely(source: Path, target: Path, config: Path) -> float:
    """Copy with scp, then sync and hash the copy over ssh; give the seconds."""
    start = time.perf_counter()
    push_with_scp(source, target, config)
    command = f"sync && sha256sum {shlex.quote(str(target))}"
    argv = ("ssh", "-F", str(config), "quickstart", command)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


@contextmanager
def slow_link(config: Path, milliseconds: int, *, megabits: int | None = None) -> Iterator[Path]:
    """Give a client configuration that leads to the server over a link with that round trip.

    Args:
        config: of the server.
        milliseconds: the round trip; 0 leaves the link as it is.
        megabits: it carries a second; None does not limit them.
    """
    if milliseconds == 0:
        yield config
        return
    (line,) = [each for each in config.read_text().splitlines() if "Port " in each]
    port = line.split()[-1]
    rate = () if megabits is None else (str(megabits),)
    script = Path(__file__).with_name("slow_link.py")
    argv = (sys.executable, script, port, str(milliseconds), *rate)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        slow = next(iter(process.stdout or ())).strip()
        changed = config.with_name(f"ssh_config_{milliseconds}")
        # The host key is known under the port it was written down with.
        alias = f"{line}\n  HostKeyAlias [127.0.0.1]:{port}".replace(port, slow, 1)
        changed.write_text(config.read_text().replace(line, alias))
        try:
            yield changed
        finally:
            process.kill()


def measure(bundle: Bundle, folder: Path, config: Path) -> tuple[list[float], ...]:
    """Give the seconds of transfers, of whole pushes and of scp without and with sync and hash."""
    taken: tuple[list[float], ...] = ([], [], [], [])
    for round_ in range(NUM_ROUNDS + 1):
        sent, root = folder / "sent", folder / "root"
        copy, sure = folder / "copy", folder / "sure"
        seconds = (
            send_with_edgepack(bundle, sent, config),
            push_with_edgepack(bundle, root, config),
            push_with_scp(bundle.path, copy, config),
            push_with_scp_surely(bundle.path, sure, config),
        )
        shutil.rmtree(root)
        sent.unlink()
        copy.unlink()
        sure.unlink()
        if round_:  # the first round warms all sides up
            for each, value in zip(taken, seconds, strict=True):
                each.append(value)
    return taken


def compare(ours: list[float], theirs: list[float]) -> float:
    """Give the median of the paired ratios of two rates."""
    return statistics.median(other / mine for mine, other in zip(ours, theirs, strict=True))


def main() -> int:
    """Print the medians and their ratios; 1 when the bar is missed."""
    server_script = REPOSITORY / "scripts" / "loopback-sshd"
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = write_digits_bundle(
            folder / "large.edgepack",
            extra_files={"classes.txt": b"nil\n", "weights.bin": os.urandom(NUM_BYTES)},
        )
        server = folder / "server"
        server.mkdir()
        subprocess.run((server_script, "start", server), check=True)
        try:
            for milliseconds in ROUND_TRIPS_MS:
                with slow_link(server / "ssh_config", milliseconds) as config:
                    taken = measure(bundle, folder, config)
                print(f"round trip of {milliseconds} ms, {NUM_ROUNDS} rounds in turns; rate as a")
                print("multiple of scp's and of that of scp, sync and sha256sum")
                for label, seconds in zip(LABELS, taken, strict=True):
                    scp, sure = (compare(seconds, taken[place]) for place in (2, 3))
                    median = statistics.median(seconds)
                    rate = f"{median:6.3f} s  {NUM_BYTES / median / 1e6:6.0f} MB/s"
                    print(f"  {label:24}{rate}  {scp:5.2f}x  {sure:5.2f}x", flush=True)
                ratios += (compare(taken[0], taken[2]), compare(taken[1], taken[3]))
        finally:
            subprocess.run((server_script, "stop", server), check=True)
    return int(min(ratios) < LEAST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
