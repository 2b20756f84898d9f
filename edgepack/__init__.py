"""EdgePack: optimize, deploy and benchmark neural networks on named edge devices."""

__version__ = "0.1.0"
