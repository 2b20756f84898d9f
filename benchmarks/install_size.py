"""Install EdgePack without extras into a fresh environment and add up what it brought.

    python benchmarks/install_size.py

Bar: below 400 MB (10^6 bytes), not counting pip and setuptools, which every environment has.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
LIMIT_BYTES = 400_000_000


def folder_bytes(folder: Path) -> int:
    """Add up the sizes of a folder's files; links count as nothing."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def main() -> int:
    """Print the size of each large package and the sum; 1 when the bar is missed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder, with_pip=True)
        before = folder_bytes(folder)
        python = folder / "bin" / "python"
        pip = (python, "-m", "pip", "install", "--quiet")
        subprocess.run([*pip, REPOSITORY], check=True)
        total = folder_bytes(folder) - before
        packages = next(folder.glob("lib/python*/site-packages"))
        sizes = sorted((folder_bytes(p), p.name) for p in packages.iterdir() if p.is_dir())
        for num_bytes, package in reversed(sizes[-8:]):
            print(f"{num_bytes / 1e6:8.1f} MB  {package}")
        print(f"{total / 1e6:8.1f} MB  in all (bar: {LIMIT_BYTES / 1e6:.0f} MB)")
    return int(total >= LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
