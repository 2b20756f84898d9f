"""Time `edgepack --help` against `import tensorflow`, interleaved, as whole processes.

    python benchmarks/startup.py --tensorflow-python PYTHON

PYTHON is an interpreter that has TensorFlow (`edgepack toolchain list` shows the toolchain's).
Bars: the median of `--help` below 0.3 s, and at least 10x below that of the import.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

NUM_ROUNDS = 7


def time_command(argv: Sequence[str]) -> float:
    """Run a command to its end and give its wall time in seconds."""
    start = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> int:
    """Print both medians and their ratio; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tensorflow-python", required=True)
    python = parser.parse_args().tensorflow_python
    help_argv = (sys.executable, "-m", "edgepack", "--help")
    import_argv = (python, "-c", "import tensorflow")
    help_s: list[float] = []
    import_s: list[float] = []
    for round_ in range(NUM_ROUNDS + 1):
        times = time_command(help_argv), time_command(import_argv)
        if round_:  # the first round fills the page cache
            help_s.append(times[0])
            import_s.append(times[1])
    ours, theirs = statistics.median(help_s), statistics.median(import_s)
    for label, seconds in (("edgepack --help", help_s), ("import tensorflow", import_s)):
        spread = f"min {min(seconds):.3f}, max {max(seconds):.3f}"
        print(f"{label:18} median {statistics.median(seconds):.3f} s  ({spread})")
    print(f"ratio              {theirs / ours:.1f}x over {NUM_ROUNDS} interleaved rounds")
    return int(ours >= 0.3 or theirs / ours < 10)


if __name__ == "__main__":
    sys.exit(main())
