"""Set a process up within its bounds, and stand over it until it and its children are gone.

Run as a program: `python launch.py SETUP COMMAND...`, where SETUP is a JSON object: `parent`
(process id), `answer_fd`, `report_fd`, `folder`, `data_bytes`, `file_bytes` (0: no bound),
`own_code`. The command runs as a child with the answer's pipe on fd 3; when it has ended, what
it left running is killed, and `{"status", "peak_bytes"}` goes to the report's pipe.

Only the standard library is imported: it runs under the Python of any toolchain. What must
happen between fork and exec is done here, in a process of its own, because `preexec_fn` may
deadlock in a program with threads (Python's own documentation).
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

_ANSWER_FD = 3
# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
# System calls added since Linux 5.1 have one number on every architecture.
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
# linux/landlock.h: what changes files, with the ABI each came with.
_WRITE_FILE = 1 << 1
_REMOVE_AND_MAKE = 0b1_1111_1111 << 4
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_REFER_ABI, _TRUNCATE_ABI, _NETWORK_ABI, _SCOPE_ABI = 2, 3, 4, 6
_BIND_AND_CONNECT_TCP = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
_SINKS = ("/dev/null", "/dev/zero")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where shm_open(3) and sem_open(3) put things


class _Stopped(BaseException):
    """EdgePack wants the process to end, or has died."""


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def main() -> None:
    """Start the command and stand over it."""
    setup: dict[str, Any] = json.loads(sys.argv[1])
    bound(setup)
    signal.signal(signal.SIGTERM, _stop)
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what the command leaves behind becomes ours
        # EdgePack may be killed outright, and a conversion would run on for minutes.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != setup["parent"]:  # it died before the line above
            sys.exit("EdgePack has ended")
    own = os.getpid()
    child = os.fork()
    if child == 0:
        become(setup, own)
    os.close(setup["answer_fd"])
    with contextlib.suppress(BrokenPipeError), os.fdopen(setup["report_fd"], "w") as report:
        json.dump({"status": supervise(child), "peak_bytes": peak_bytes()}, report)


def bound(setup: dict[str, Any]) -> None:
    """Bound what a process and its children may take, as far as the system itself can."""
    limits = [
        (resource.RLIMIT_CORE, 0),  # gigabytes in the user's folder, of a framework that crashed
        (resource.RLIMIT_FSIZE, setup["file_bytes"] or resource.RLIM_INFINITY),
    ]
    if sys.platform == "linux":
        # Not RLIMIT_AS: TensorFlow 2.21 and torch 2.13 map three times what they use. Their
        # writable private memory (RLIMIT_DATA) is below their resident memory.
        limits.append((resource.RLIMIT_DATA, setup["data_bytes"] or resource.RLIM_INFINITY))
        # When the machine runs out all the same, the kernel takes this process, not the user's.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - pathlib would be one more import
            file.write("1000")
    for kind, value in limits:
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = hard if value == resource.RLIM_INFINITY else min(value, hard)  # noqa: PLW2901 - the system's own bound may be lower
        resource.setrlimit(kind, (value, value))


def become(setup: dict[str, Any], parent: int) -> None:
    """Become the command: its pipe on fd 3, its writes confined."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.close(setup["report_fd"])
    if setup["answer_fd"] != _ANSWER_FD:
        os.dup2(setup["answer_fd"], _ANSWER_FD, inheritable=True)
        os.close(setup["answer_fd"])
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    fault = confine(setup["folder"], own_code=setup["own_code"])
    if fault:
        _note(f"EdgePack: writes are not confined to {setup['folder']}: {fault}")
    try:
        os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - an argv list of EdgePack's own
    except OSError as error:
        _note(f"{sys.argv[2]} cannot be started: {error.strerror}")
    os._exit(127)


def confine(folder: str, *, own_code: bool) -> str | None:
    """Let this process and its children change files below a folder only (Landlock).

    Reading stays as it is. Signals to processes outside are refused where the kernel can, and
    TCP, too, unless it is the user's `own_code`; that also gets shared memory, which
    `multiprocessing` has its locks in.

    Returns:
        None, or the reason why this system cannot.
    """
    abi = landlock_abi()
    if abi < 1:
        return "this system has no Landlock (Linux 5.13 and newer have)"
    handled = _WRITE_FILE | _REMOVE_AND_MAKE
    handled |= _REFER if abi >= _REFER_ABI else 0
    handled |= _TRUNCATE if abi >= _TRUNCATE_ABI else 0
    is_offline = abi >= _NETWORK_ABI and not own_code
    attributes = (ctypes.c_uint64 * 3)(
        handled,
        _BIND_AND_CONNECT_TCP if is_offline else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= _SCOPE_ABI else 0,
    )
    num_bytes = 24 if abi >= _SCOPE_ABI else 16 if abi >= _NETWORK_ABI else 8
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    ruleset = _call(_LANDLOCK_CREATE_RULESET, attributes, num_bytes, 0)
    if ruleset < 0:
        return os.strerror(ctypes.get_errno())
    _allow(ruleset, folder, handled)
    if own_code:
        _allow(ruleset, _SHARED_MEMORY, handled)
    for sink in _SINKS:
        _allow(ruleset, sink, handled & (_WRITE_FILE | _TRUNCATE))
    ended = _call(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return os.strerror(ctypes.get_errno()) if ended < 0 else None


def landlock_abi() -> int:
    """Give the version of this kernel's Landlock; 0 or less when there is none."""
    if sys.platform != "linux":
        return 0
    return _call(_LANDLOCK_CREATE_RULESET, None, 0, 1)


def supervise(child: int) -> int:
    """Wait for the command and end what it left; give its wait status."""
    pid, status, left = 0, int(signal.SIGKILL), [child]
    try:
        while pid != child:
            pid, status = os.wait()  # of others, too: orphans become ours
        left = []
    except _Stopped:
        pass
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        # Killing a process hands its children to us, so this ends when none is left.
        for each in left or children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        left = []
        try:
            os.wait()
        except ChildProcessError:
            return status


def children() -> list[int]:
    """Give the ids of this process's children."""
    own, found = os.getpid(), []
    for name in os.listdir("/proc") if sys.platform == "linux" else ():  # noqa: PTH208 - see above
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - see above
                if int(file.read().rpartition(b")")[2].split()[1]) == own:
                    found.append(int(name))
    return found


def peak_bytes() -> int:
    """Give the most memory one of the ended processes held."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _stop(*_: object) -> None:
    raise _Stopped


def _allow(ruleset: int, path: str, access: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _PathRule(allowed_access=access, parent_fd=descriptor)
        _call(_LANDLOCK_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    # Pointers and numbers of any size must go as machine words through the variadic syscall().
    words = [
        ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments
    ]
    return int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *words))


def _prctl(option: int, value: int) -> None:
    # prctl(2) refuses some options when the unused arguments are not zero.
    zero = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero)


if __name__ == "__main__":
    main()
