"""The provider simulator: one local HTTP server that plays other companies. It is a double, and nothing it says is
proof of how a real provider behaves.

It plays a helpdesk (Richpanel's API), an OpenAI-compatible LLM, payments (Stripe's API), OCR (Mindee's API), SMS
(Twilio's API), email (SES's), an endpoint that honours idempotency keys and one that honours none. It records every
side effect with its key or marker, and can be told to fail in the ways providers fail.

    python -m ops.simulator --port 0

prints one JSON line with the port it got. In tests, `serve()` runs it in this process.
"""

from ops.simulator.control import SimulatorControl, SimulatorOverflow, SimulatorRefused
from ops.simulator.faults import Fault, FaultMode
from ops.simulator.record import Effect, RequestRecord
from ops.simulator.server import RunningSimulator, serve

__all__ = [
    "Effect",
    "Fault",
    "FaultMode",
    "RequestRecord",
    "RunningSimulator",
    "SimulatorControl",
    "SimulatorOverflow",
    "SimulatorRefused",
    "serve",
]
