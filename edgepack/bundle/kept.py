"""A bundle in memory: for many devices at a time its files are read once."""

import threading
from dataclasses import dataclass, field, fields

from edgepack.bundle.archive import Bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptBundle(Bundle):
    """A bundle whose files stay in memory from their first reading on.

    Attributes:
        kept: what was read, by path.
        lock: who reads waits for who reads already.
    """

    kept: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def read(self, path: str) -> bytes:
        """Give one file, checked when it was read.

        Raises:
            BundleError: no such file in the bundle; the bundle changed since it was opened.
        """
        with self.lock:
            data = self.kept.get(path)
            if data is None:
                data = self.kept[path] = Bundle.read(self, path)
            return data


def keep_bundle(bundle: Bundle) -> KeptBundle:
    """Give an opened bundle that reads each of its files once."""
    return KeptBundle(**{each.name: getattr(bundle, each.name) for each in fields(bundle)})
