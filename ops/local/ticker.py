"""The clock of a local stack: invokes sweeper, evaluator and pager every second, as EventBridge does each minute, and
the sender of synthetic events every few seconds.

One thread per function, and the next tick waits for the last one's answer, so no function ever runs twice at once. It
ends with its stack; if the stack belongs to a process (a test run, the demo) that was killed, it ends the stack.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops.local.processes import birth
from ops.local.state import LocalState
from ops.local.teardown import tear_down
from ops.stack import client

INTERVAL_SECONDS = 1.0
_AFTER_FAILURE_SECONDS = 5.0
_GIVE_UP_AFTER = 20  # failures to reach the emulator in a row: it is gone
TICKED = {
    "SweeperFunction": INTERVAL_SECONDS,
    "EvaluatorFunction": INTERVAL_SECONDS,
    "PagerFunction": INTERVAL_SECONDS,
    # Each takes the emulator through ingress and worker: often enough for the minutes by which alarms are judged here.
    "SyntheticFunction": 4.0,
}
"""By the output that names the function: how often."""


def tick(lambda_client: Any, function: str, stop: threading.Event, interval_seconds: float = INTERVAL_SECONDS) -> None:
    """Invoke the function each interval until told to stop, or until nobody answers any more."""
    unreachable = 0
    while not stop.is_set():
        began, pause = time.monotonic(), interval_seconds
        try:
            answer = lambda_client.invoke(FunctionName=function, Payload=b"{}")
            unreachable = 0
            if answer.get("FunctionError"):
                pause = _AFTER_FAILURE_SECONDS  # a function that fails starts anew each time, which costs the others
                report(f"{function} failed: {answer['Payload'].read()[:1000].decode(errors='replace')}")
        except (BotoCoreError, ClientError) as exc:
            unreachable += 1
            report(f"{function} could not be invoked: {exc}")
            if unreachable >= _GIVE_UP_AFTER:
                stop.set()
        stop.wait(max(0.0, pause - (time.monotonic() - began)))


def report(text: str) -> None:
    """One line of the ticker's log."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m ops.local.ticker STATE_FILE [--owner PID]`."""
    parser = argparse.ArgumentParser(prog="ops.local.ticker", description="Ticks a local stack.")
    parser.add_argument("state_file", type=Path)
    parser.add_argument("--owner", type=int, default=0, help="end the stack when the process of this pid is gone")
    parser.add_argument("--owner-born", default="", help="when that process started, as the owner itself noted it")
    options = parser.parse_args(argv)
    state = LocalState.read(options.state_file)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    lambda_client = client("lambda", state.endpoint, state.region)
    for key, seconds in TICKED.items():
        work = (lambda_client, state.outputs[key], stop, seconds)
        threading.Thread(target=tick, args=work, name=key, daemon=True).start()
    while not stop.wait(1.0):
        if options.owner and birth(options.owner) != options.owner_born:
            report("the process that this stack belongs to is gone: the stack ends with it")
            tear_down(options.state_file, spare=os.getpid())
            return 0
        if not options.state_file.exists():
            return 0
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, json.JSONDecodeError) as exc:
        sys.exit(f"the state file cannot be read: {exc}")
