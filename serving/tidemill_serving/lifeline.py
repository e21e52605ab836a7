"""A replica never outlives the process that launched it, however that one ended."""

import ctypes
import os
import select
import signal
import threading

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """End this process when `parent_pid` ends, whatever we do at that time.

    Two ways, since each has a gap: the kernel kills us when our direct parent dies (even if no Python code can
    run), and a thread watches the named process (even if that is not our direct parent).

    The process leaves its parent's process group too: a Ctrl-C in the parent's terminal is for the parent alone,
    which then drains us.

    Raises ProcessLookupError when the parent has gone already.
    """
    watched = os.pidfd_open(parent_pid)
    if os.getpgrp() != os.getpid():
        os.setsid()
    if os.getppid() == parent_pid:
        end_with_parent_thread()
    threading.Thread(target=_watch, args=(watched,), name="lifeline", daemon=True).start()


def end_with_parent_thread() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def _watch(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()
    os.kill(os.getpid(), signal.SIGKILL)
