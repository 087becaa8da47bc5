"""Becomes a command that ends when whoever started it ends, even by SIGKILL.

It is run by its path, not imported, so that a command starts without loading the SDK twice::

    python -I -S leash.py PARENT_PID PROGRAM ARGUMENT...

On Linux the kernel sends the command SIGKILL when its parent is gone (``prctl(PR_SET_PDEATHSIG)``, which outlives
``exec``). Elsewhere the command runs without a leash, and the demo ends it by its pid.
"""

from __future__ import annotations

import os
import sys

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def main(parent: int, command: list[str]) -> None:
    """Tie this process to its parent, then become the command."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:  # it ended before the leash was on
        os._exit(1)
    os.execv(command[0], command)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
