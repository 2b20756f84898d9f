"""Push 100 MB over loopback SSH with EdgePack's transport and with OpenSSH's scp, interleaved.

    python benchmarks/push_rate.py

Starts an SSH server of its own on a loopback port. Bar: at least 0.9x the rate of scp, by the
median of the paired ratios. EdgePack's figure includes the device hashing what it stored,
which scp does not do; connections are made anew for each transfer on both sides.
"""

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgepack.device.connect import ConnectOptions, open_device

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_BYTES = 100_000_000
NUM_ROUNDS = 7


def push_with_edgepack(source: Path, target: Path, config: Path, digest: str) -> float:
    """Connect, upload, compare the device's digest; give the seconds."""
    start = time.perf_counter()
    with open_device("quickstart", options=ConnectOptions(ssh_config=config)) as device:
        stored = device.upload(source, str(target), timeout_seconds=120)
    seconds = time.perf_counter() - start
    if stored != digest:
        sys.exit("the device stored something else")
    return seconds


def push_with_scp(source: Path, target: Path, config: Path) -> float:
    """Copy with scp; give the seconds."""
    start = time.perf_counter()
    argv = ("scp", "-q", "-F", str(config), str(source), f"quickstart:{target}")
    subprocess.run(argv, check=True)
    return time.perf_counter() - start


def main() -> int:
    """Print both medians and their ratio; 1 when the bar is missed."""
    server_script = REPOSITORY / "scripts" / "loopback-sshd"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "payload"
        source.write_bytes(os.urandom(NUM_BYTES))
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        server = folder / "server"
        server.mkdir()
        subprocess.run((server_script, "start", server), check=True)
        try:
            config = server / "ssh_config"
            ours: list[float] = []
            theirs: list[float] = []
            for round_ in range(NUM_ROUNDS + 1):
                pair = (
                    push_with_edgepack(source, folder / "a", config, digest),
                    push_with_scp(source, folder / "b", config),
                )
                if round_:  # the first round warms both sides up
                    ours.append(pair[0])
                    theirs.append(pair[1])
        finally:
            subprocess.run((server_script, "stop", server), check=True)
    ratio = statistics.median(scp / edgepack for scp, edgepack in zip(theirs, ours, strict=True))
    for label, seconds in (("edgepack, verified", ours), ("scp", theirs)):
        median = statistics.median(seconds)
        print(f"{label:20}{median:6.3f} s  {NUM_BYTES / median / 1e6:6.0f} MB/s")
    print(f"rate against scp    {ratio:6.2f}x over {NUM_ROUNDS} interleaved rounds")
    return int(ratio < 0.9)


if __name__ == "__main__":
    sys.exit(main())
