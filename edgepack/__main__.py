"""Run EdgePack as `python -m edgepack`."""

from edgepack.cli import main

main()
