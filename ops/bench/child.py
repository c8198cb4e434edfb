"""A fresh process that loads one handler as Lambda does and answers events. Started by `ops.bench.measure`.

It imports the handler, reads the first event from standard input, answers it and tells what that took; then it does
what it is told, one JSON line at a time, until standard input ends. Whatever it tells is one JSON line on the file
descriptor it was given; standard output belongs to the handler. It imports little itself: all of it is in the figures
of whoever is measured.
"""

import json
import os
import resource
import sys
import time
from typing import Any  # in every handler's imports too


class Context:
    """What Lambda passes beside the event."""

    function_name = "bench"
    function_version = "$LATEST"
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:bench"
    memory_limit_in_mb = "256"
    aws_request_id = "00000000-0000-4000-8000-000000000001"
    log_group_name = "/aws/lambda/bench"
    log_stream_name = "bench"

    def get_remaining_time_in_millis(self) -> int:
        """As if the invocation had just begun."""
        return 10_000


CONTEXT = Context()


def peak_bytes() -> int:
    """The most memory this process has held at once.

    Linux tells it for the process alone as VmHWM; `ru_maxrss` there starts from what the parent held when it forked.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123  # pathlib would weigh in the figures
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass  # not Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_seconds() -> float:
    """What this process has used since it was started, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Argument: `{"path", "module", "function", "tell", "events", "profile"}` as JSON."""
    plan = json.loads(sys.argv[1])
    sys.path[:0] = plan["path"]
    profiler = None
    if plan["profile"]:
        import cProfile  # noqa: PLC0415  # nobody else pays for it

        profiler = cProfile.Profile()
        profiler.enable()
    # No importlib, which Lambda's own start has loaded long before and which would count here.
    __import__(plan["module"])
    handler = getattr(sys.modules[plan["module"]], plan["function"])
    first = json.loads(sys.stdin.readline())
    answer = handler(first, CONTEXT)
    cpu, peak = cpu_seconds(), peak_bytes()
    if profiler is not None:
        profiler.disable()
        profiler.dump_stats(plan["profile"] + ".first")
    told = os.fdopen(plan["tell"], "w", buffering=1)

    def tell(what: dict[str, Any]) -> None:
        told.write(json.dumps(what) + "\n")

    tell(
        {
            "answer": answer,
            "cpu_seconds": cpu,
            "peak_bytes": peak,
            "modules": len(sys.modules),
            "loads_boto3": "boto3" in sys.modules,
        }
    )
    with open(plan["events"], encoding="utf-8") as lines:  # noqa: PTH123  # as above
        events = lines.read().splitlines()
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "answer":
            tell(answer_all(handler, events, order["requests"], plan["profile"] if profiler is not None else ""))
        else:
            tell(answer_on_time(handler, events, order))


def answer_all(handler: Any, events: list[str], requests: int, profile: str) -> dict[str, Any]:
    """Answer so many events one after the other; tells the CPU time within the handler alone."""
    profiler = None
    if profile:
        import cProfile  # noqa: PLC0415  # as above

        profiler = cProfile.Profile()
    used_ns = refused = 0
    for number in range(requests):
        event = json.loads(events[number % len(events)])
        if profiler is not None:
            profiler.enable()
        began_ns = time.process_time_ns()
        answer = handler(event, CONTEXT)
        used_ns += time.process_time_ns() - began_ns
        if profiler is not None:
            profiler.disable()
        refused += answer["statusCode"] != 202
    if profiler is not None:
        profiler.dump_stats(profile + ".warm")
    return {"cpu_seconds": used_ns / 1e9, "refused": refused, "peak_bytes": peak_bytes()}


def answer_on_time(handler: Any, events: list[str], order: dict[str, Any]) -> dict[str, Any]:
    """Answer one event at each moment of a schedule; tells how long after its moment each answer was there.

    The moments are fixed beforehand: an answer that is late makes the next one late too, and that is counted.
    """
    seconds, refused = [], 0
    for number in range(order["requests"]):
        event = json.loads(events[number % len(events)])
        due = order["start"] + number * order["interval"]
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        answer = handler(event, CONTEXT)
        seconds.append(time.monotonic() - due)
        refused += answer["statusCode"] != 202
    return {"seconds": seconds, "refused": refused}


if __name__ == "__main__":
    main()
