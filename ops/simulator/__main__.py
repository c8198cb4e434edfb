"""Run the simulator until SIGTERM or SIGINT. Prints one JSON line with its port and URLs."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading

from ops.simulator.server import SimulatorServer


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m ops.simulator`."""
    parser = argparse.ArgumentParser(prog="ops.simulator", description="A double of the providers that Holdfast calls.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    options = parser.parse_args(argv)
    try:
        server = SimulatorServer(options.port)
    except OSError as exc:
        print(f"cannot listen on 127.0.0.1:{options.port}: {exc.strerror}", file=sys.stderr)
        return 1
    ended = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: ended.set())
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="simulator", daemon=True
    )
    thread.start()
    base_url = f"http://127.0.0.1:{server.port}"
    line = {
        "port": server.port,
        "base_url": base_url,
        "helpdesk_url": f"{base_url}/richpanel/v1",
        "llm_url": f"{base_url}/v1",
        "payments_url": f"{base_url}/stripe/v1",
        "ocr_url": f"{base_url}/mindee/v2",
        "sms_url": f"{base_url}/twilio",
        "email_url": f"{base_url}/ses",
    }
    print(json.dumps(line), flush=True)
    ended.wait()
    server.stop()
    thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
