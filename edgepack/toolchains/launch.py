"""Set a worker's process up, then become the worker.

Run as a program: `python launch.py PARENT_PID ANSWER_FD MEMORY_BYTES COMMAND...`. What
must happen between fork and exec is done here, in a process of its own, because
`preexec_fn` may deadlock in a program with threads (Python's own documentation).
"""

import ctypes
import os
import resource
import signal
import sys

_ANSWER_FD = 3
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Put the answer's pipe on fd 3, bound the memory, and execute the worker."""
    parent, answer, memory_bytes = map(int, sys.argv[1:4])
    if answer != _ANSWER_FD:
        os.dup2(answer, _ANSWER_FD, inheritable=True)
        os.close(answer)
    if memory_bytes and sys.platform == "linux":  # macOS knows the limit and ignores it
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        bound = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    # A core dump of a framework that crashed is gigabytes in the user's folder.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # EdgePack may be killed outright, and a conversion would run on for minutes.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            sys.exit("EdgePack has ended")
    os.execv(sys.argv[4], sys.argv[4:])  # noqa: S606 - an argv list of EdgePack's own


if __name__ == "__main__":
    main()
