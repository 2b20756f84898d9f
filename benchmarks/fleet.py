"""Push 10 MB to 100 SSH servers with EdgePack, with Ansible and with scp, side by side.

    python -m benchmarks.fleet [--num 100] [--rounds 3] [--ansible PATH/TO/ansible-playbook]

Starts that many SSH servers of its own on loopback ports, each with a folder of its own, and goes
through all sides in turns. All of them are new connections and empty folders. Bars, by the
medians:

- EdgePack (`push @fleet.toml --bundle-only`, which verifies, syncs, switches and reads back) takes
  at most 0.25x the time of Ansible (100 forks, pipelining, one task that copies and one that runs a
  command), and at most 2.2x that of `xargs -P 40 scp`, which only copies.
- Ten dead endpoints more add at most 10%.
- From 10 devices to all, each at the same time, the memory of EdgePack's processes grows by at most
  2 MB a device.

Ansible is left out without `--ansible`; install ansible-core into an environment of its own.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures.bundle import built_in_profile, write_digits_bundle
from tests.fixtures.sshd import SshServer, start_sshd

NUM_BYTES = 10_000_000
NUM_DEAD = 10
NUM_SCP = 40
NUM_FEW = 10
MOST_OF_ANSIBLE = 0.25
MOST_OF_SCP = 2.2
MOST_FOR_DEAD = 1.1
MOST_MB_A_DEVICE = 2.0
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {{src: {bundle}, dest: "{{{{ root }}}}/copy"}}
    - ansible.builtin.command: sha256sum "{{{{ root }}}}/copy"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Yard:
    """The servers, and where each has its folder."""

    folder: Path
    servers: tuple[SshServer, ...]
    bundle: Path
    ansible: str | None

    @property
    def config(self) -> Path:
        """A client configuration that knows all of them."""
        return self.folder / "config"

    def root(self, number: int) -> Path:
        """The folder of a server."""
        return self.folder / "roots" / str(number)

    def clear(self) -> None:
        """Empty all folders."""
        for number in range(len(self.servers)):
            shutil.rmtree(self.root(number), ignore_errors=True)
            self.root(number).mkdir(parents=True)


@contextmanager
def open_yard(num_servers: int, ansible: str | None) -> Iterator[Yard]:
    """Start the servers and write the bundle."""
    with tempfile.TemporaryDirectory(prefix="edgepack-fleet-") as name, ExitStack() as stack:
        folder = Path(name)
        first = folder / "server" / "0"
        servers = [stack.enter_context(start_sshd(first, ["MaxStartups 200"]))]
        for number in range(1, num_servers):
            # One host key and one user key serve for all.
            other = shutil.copytree(
                first, folder / "server" / str(number), ignore=shutil.ignore_patterns("log")
            )
            servers.append(stack.enter_context(start_sshd(other, ["MaxStartups 200"])))
        known = "".join(each.known_hosts.read_text() for each in servers)
        (folder / "known_hosts").write_text(known)
        (folder / "config").write_text(
            f"Host *\n  IdentityFile {first}/id\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile none\n"
        )
        bundle = folder / "large.edgepack"
        write_digits_bundle(
            bundle,
            target=built_in_profile("laptop-x86-64"),
            extra_files={"classes.txt": b"nil\n", "weights.bin": os.urandom(NUM_BYTES)},
        )
        yield Yard(folder=folder, servers=tuple(servers), bundle=bundle, ansible=ansible)


def write_fleet(yard: Yard, num_devices: int, num_dead: int) -> Path:
    """Write a fleet file of the first servers, with dead endpoints spread among them."""
    lines = [
        f'[[devices]]\naddress = "{each.address}"\nroot = "{yard.root(number)}"\n'
        for number, each in enumerate(yard.servers[:num_devices])
    ]
    for number in range(num_dead):
        with socket.socket() as probe:  # a port that nobody listens on
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        lines.insert(
            (number + 1) * num_devices // num_dead,
            f'[[devices]]\naddress = "nobody@127.0.0.1:{port}"\nroot = "/nowhere"\n',
        )
    path = yard.folder / "fleet.toml"
    path.write_text("schema = 1\n" + "\n".join(lines))
    return path


def push(
    yard: Yard, *, num_devices: int = 0, num_dead: int = 0, num_jobs: int | None = None
) -> tuple[float, float]:
    """Push with EdgePack; give the seconds and the peak memory of all its processes in MB."""
    num_devices = num_devices or len(yard.servers)
    fleet = write_fleet(yard, num_devices, num_dead)
    argv = [
        *(sys.executable, "-m", "edgepack", "push", str(yard.bundle), f"@{fleet}"),
        *("--ssh-config", str(yard.config), "--bundle-only", "--json"),
        *("--journal", str(yard.folder / "journal.jsonl")),
        *(() if num_jobs is None else ("--jobs", str(num_jobs))),
    ]
    start = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        peaks = Peaks(process.pid)
        _, said = process.communicate()
        seconds = time.perf_counter() - start
        peaks.stop()
    if process.returncode != (1 if num_dead else 0):
        sys.exit(said.decode())
    placed = [yard.root(number) for number in range(num_devices)]
    missing = [root for root in placed if not (root / "bundles/digits/current").exists()]
    if missing:
        sys.exit(f"{len(missing)} devices have nothing")
    return seconds, peaks.total_mb


class Peaks:
    """The largest resident memory of a process and of those it started, summed."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks_kb: dict[int, int] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    @property
    def total_mb(self) -> float:
        """The sum of the peaks, in MB of 10^6 bytes."""
        return sum(self._peaks_kb.values()) * 1024 / 1e6

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(0.05):
            for pid in (self._pid, *_children(self._pid)):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                    command = Path(f"/proc/{pid}/cmdline").read_bytes()
                except OSError:
                    continue  # it has just ended
                (line,) = [each for each in status.splitlines() if "VmHWM" in each] or ["x 0"]
                if b"edgepack" in command:  # not `ssh -G`
                    self._peaks_kb[pid] = int(line.split()[1])


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text().split()]
        except OSError:
            continue  # a thread that has just ended
    return found


def copy_with_scp(yard: Yard) -> float:
    """Copy with scp, 40 at a time; give the seconds."""
    lines = "\n".join(
        f"{each.port} {yard.root(number)}/copy" for number, each in enumerate(yard.servers)
    )
    user = yard.servers[0].user
    script = f'scp -q -F {yard.config} -P "$0" {yard.bundle} {user}@127.0.0.1:"$1"'
    start = time.perf_counter()
    subprocess.run(
        ["xargs", "-P", str(NUM_SCP), "-n", "2", "sh", "-c", script],
        input=lines.encode(),
        check=True,
    )
    return time.perf_counter() - start


def copy_with_ansible(yard: Yard) -> float:
    """Copy and run a command with Ansible; give the seconds."""
    inventory, playbook = yard.folder / "inventory", yard.folder / "playbook.yml"
    inventory.write_text(
        "".join(
            f"d{number} ansible_host=127.0.0.1 ansible_port={each.port} root={yard.root(number)}\n"
            for number, each in enumerate(yard.servers)
        )
        + "[all:vars]\nansible_python_interpreter=/usr/bin/python3\n"
    )
    playbook.write_text(PLAYBOOK.format(bundle=yard.bundle))
    environment = os.environ | {
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_SSH_COMMON_ARGS": f"-F {yard.config}",
        "ANSIBLE_HOME": str(yard.folder / "ansible"),
        "ANSIBLE_REMOTE_TMP": str(yard.folder / "remote"),
        "PYTHONPATH": "",
    }
    argv = [str(yard.ansible), "-i", str(inventory), "-f", "100", str(playbook)]
    start = time.perf_counter()
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return seconds


def repeat(num_rounds: int, sides: Sequence[Callable[[], float]], yard: Yard) -> list[float]:
    """Give the median seconds of each side, taken in turns."""
    taken: list[list[float]] = [[] for _ in sides]
    for _ in range(num_rounds):
        for each, side in zip(taken, sides, strict=True):
            yard.clear()
            each.append(side())
    return [statistics.median(each) for each in taken]


def main() -> int:
    """Print the times and their ratios; 1 when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ansible")
    given = parser.parse_args()
    with open_yard(given.num, given.ansible) as yard:
        ours, dead, scp = repeat(
            given.rounds,
            (
                lambda: push(yard, num_jobs=given.num)[0],
                lambda: push(yard, num_dead=NUM_DEAD, num_jobs=given.num)[0],
                lambda: copy_with_scp(yard),
            ),
            yard,
        )
        yard.clear()
        few_mb, many_mb = (
            push(yard, num_devices=number, num_jobs=number)[1]
            for number in (NUM_FEW, len(yard.servers))
        )
        yard.clear()
        ansible = copy_with_ansible(yard) if yard.ansible else None
    a_device_mb = (many_mb - few_mb) / max(1, given.num - NUM_FEW)
    print(f"{given.num} servers on loopback, {NUM_BYTES / 1e6:.0f} MB, {given.rounds} rounds")
    print(f"  edgepack push          {ours:7.1f} s")
    print(f"  with {NUM_DEAD} dead more      {dead:7.1f} s  {dead / ours:5.2f}x")
    print(f"  xargs -P {NUM_SCP} scp        {scp:7.1f} s  edgepack takes {ours / scp:.2f}x")
    if ansible is not None:
        print(f"  ansible, copy + command{ansible:7.1f} s  edgepack takes {ours / ansible:.2f}x")
    print(f"  memory {many_mb:.0f} MB, {a_device_mb:.2f} MB a device beyond {NUM_FEW}")
    is_missed = (
        ours > MOST_OF_SCP * scp
        or dead > MOST_FOR_DEAD * ours
        or a_device_mb > MOST_MB_A_DEVICE
        or (ansible is not None and ours > MOST_OF_ANSIBLE * ansible)
    )
    return int(is_missed)


if __name__ == "__main__":
    sys.exit(main())
