"""`python -m tests.in_the_gaps COMMAND ...`: run it in the time that the others leave, and end as it ends.

The local stack promises answers within a second or so; what computes beside it must not take its turn. A low priority
counts only among the processes of one session where the kernel groups tasks by session (sched(7), "The autogroup
feature"), so the command has a session of its own, and the session as a whole has the lowest priority there is. Where
the kernel does not know that, its processes have it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

LOWEST = 19
BECOME = "--become"  # in the new session, where this process goes on as the command
AUTOGROUP = Path("/proc/self/autogroup")


def yield_to_others() -> None:
    """The lowest priority, for this process and its session."""
    os.nice(LOWEST)
    with suppress(OSError):  # a kernel without it, or a container that keeps it to itself
        AUTOGROUP.write_text(str(LOWEST), encoding="ascii")


def main(command: list[str]) -> int:
    """See the module. A signal to end is handed on to all of the command's processes."""
    if command[0] == BECOME:
        yield_to_others()
        os.execvp(command[1], command[1:])  # noqa: S606  # what the Makefile says is what is run
    started = subprocess.Popen([sys.executable, "-m", __spec__.name, BECOME, *command], start_new_session=True)

    def hand_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hand_on)
    ended = started.wait()
    return ended if ended >= 0 else 128 - ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
