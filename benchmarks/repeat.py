"""Time a first and a repeated `pack`, and a first and a repeated `push`, as whole processes.

    python benchmarks/repeat.py

The cache and the device's folder are fresh for the run (toolchains and wheels are shared
with the user's cache, so their installation is not counted). Bars: the repeated pack takes
at most 5% of the first; the repeated push sends 0 payload bytes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgepack.cache import cache_directory

REPOSITORY = Path(__file__).resolve().parent.parent
DIGITS = REPOSITORY / "examples" / "digits"


def run(argv: list[str], environment: dict[str, str]) -> tuple[float, dict[str, object]]:
    """Run an edgepack verb with `--json`; give its wall time in seconds and its answer."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "edgepack", *argv, "--json"],
        check=True,
        stdout=subprocess.PIPE,
        env=environment,
    )
    return time.perf_counter() - start, json.loads(done.stdout)


def main() -> int:
    """Print the times and bytes; 1 when a bar is missed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fresh = folder / "edgepack"
        fresh.mkdir()
        for shared in ("toolchains", "wheels"):
            if (cache_directory() / shared).is_dir():
                (fresh / shared).symlink_to(cache_directory() / shared)
        environment = os.environ | {"XDG_CACHE_HOME": str(folder)}
        bundle = folder / "digits.edgepack"
        pack = [
            *("pack", str(DIGITS / "digits.keras"), "--target", "laptop-x86-64"),
            *("--data", str(DIGITS / "digits.npz"), "--output", str(bundle)),
        ]
        first_s, _ = run(pack, environment)
        again_s = min(run(pack, environment)[0] for _ in range(3))
        push = ["push", str(bundle), "local:", "--root", str(folder / "device")]
        push_s, pushed = run(push, environment)
        repush_s, repushed = run(push, environment)
        shutil.rmtree(folder / "device")
    share = again_s / first_s
    print(f"pack   first {first_s:6.2f} s   again {again_s:6.2f} s   {share:.1%}")
    print(f"push   first {push_s:6.2f} s   again {repush_s:6.2f} s")
    print(f"       first {pushed['sent_bytes']} payload bytes, again {repushed['sent_bytes']}")
    return int(share > 0.05 or repushed["sent_bytes"] != 0)


if __name__ == "__main__":
    sys.exit(main())
