"""`python -m ops.bench`: measures, prints one JSON object on standard output and a table on standard error.

The object's schema is in `ops.bench.report`. Exit code 1 if something could not be measured; a missed target is a
figure, not an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace

from infra.bundle import BundleFailed
from ops.bench.endpoint import EndpointFailed, running
from ops.bench.measure import Load, Stage, SubjectFailed, measure, scratch_folder
from ops.bench.profile import profile
from ops.bench.report import report, table
from ops.bench.subjects import NAMES, OURS, parameters, subjects

QUICK = Load(pairs=3, warm_requests=100, rounds=1, arrivals=60)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench",
        description="What ingress costs beside a Powertools + boto3 handler of the same work.",
    )
    parser.add_argument("--pairs", type=_at_least_one, help=f"pairs of fresh processes (default {Load().pairs})")
    parser.add_argument("--quick", action="store_true", help="few of everything: for a look, not for a verdict")
    parser.add_argument("--plain", action="store_true", help="plain HTTP to the local endpoint instead of TLS")
    parser.add_argument(
        "--profile",
        nargs="?",
        const=OURS,
        choices=NAMES,
        help="say instead where the time goes, of ours or of the peer",
    )
    options = parser.parse_args(argv)
    load = QUICK if options.quick else Load()
    if options.pairs is not None:
        load = replace(load, pairs=options.pairs)
    is_tls = not options.plain
    try:
        with scratch_folder() as scratch, running(scratch, parameters(), is_tls=is_tls) as endpoint:
            stage = Stage(subjects(scratch, endpoint), endpoint, scratch)
            if options.profile is not None:
                print(profile(stage, options.profile))
                return 0
            taken = measure(stage, load)
            sizes = {name: subject.bundle_bytes for name, subject in stage.subjects.items()}
    except (BundleFailed, EndpointFailed, SubjectFailed) as exc:
        print(exc, file=sys.stderr)
        return 1
    document = report(taken, load, sizes, is_tls=is_tls)
    print(json.dumps(document, indent=2))
    print(table(document), file=sys.stderr)
    return 0


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one pair")
    return number


if __name__ == "__main__":
    sys.exit(main())
