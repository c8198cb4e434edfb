"""The client of the simulator's control plane. Stdlib only."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from ops.simulator.faults import Fault
from ops.simulator.record import Effect, RequestRecord


class SimulatorRefused(Exception):
    """The control plane answered something other than 200."""


class SimulatorOverflow(Exception):
    """The record lost entries to its bounds: nothing can be proved by it. Reset earlier."""


class SimulatorControl:
    """Typed access to `/_sim`. One connection per call; safe from several threads."""

    def __init__(self, base_url: str, *, timeout_seconds: float = 10.0) -> None:
        parts = urlsplit(base_url)
        if parts.hostname is None or parts.port is None:
            raise ValueError("the base URL of a simulator is http://host:port")
        self._host, self._port, self._timeout = parts.hostname, parts.port, timeout_seconds

    def health(self) -> dict[str, Any]:
        """`{"status": "ok", "disconnects"}`."""
        return self._call("GET", "/_sim/health")

    def effects(self, provider: str | None = None) -> list[Effect]:
        """Every side effect since the last reset, in order. Raises `SimulatorOverflow` if any is missing."""
        answer = self._call("GET", "/_sim/effects")
        if answer["dropped"]:
            raise SimulatorOverflow(f"{answer['dropped']} of {answer['total']} effects are no longer held")
        effects = [Effect(**item) for item in answer["effects"]]
        return [effect for effect in effects if provider is None or effect.provider == provider]

    def requests(self, provider: str | None = None, operation: str | None = None) -> list[RequestRecord]:
        """The requests that are still held, in order."""
        records = [RequestRecord(**item) for item in self._call("GET", "/_sim/requests")["requests"]]
        return [
            record
            for record in records
            if (provider is None or record.provider == provider)
            and (operation is None or record.operation == operation)
        ]

    def request_counts(self) -> dict[tuple[str, str, int], int]:
        """How many requests there were since the last reset, by provider, operation and status (0: no answer)."""
        counts = self._call("GET", "/_sim/requests")["counts"]
        return {(item["provider"], item["operation"], item["status"]): item["count"] for item in counts}

    def add_faults(self, *faults: Fault) -> list[str]:
        """Put faults in force. Gives their ids."""
        ids: list[str] = self._call("POST", "/_sim/faults", [fault.to_json() for fault in faults])["ids"]
        return ids

    def faults(self) -> list[dict[str, Any]]:
        """The faults in force, each with `id` and `fired`."""
        found: list[dict[str, Any]] = self._call("GET", "/_sim/faults")["faults"]
        return found

    def clear_faults(self, fault_id: str | None = None) -> int:
        """Take one fault out of force, or all. Gives how many that were."""
        path = "/_sim/faults" if fault_id is None else f"/_sim/faults/{quote(fault_id, safe='')}"
        return int(self._call("DELETE", path)["removed"])

    def reset(self) -> None:
        """Forget effects, requests, tickets, keys and faults."""
        self._call("POST", "/_sim/reset")

    def ticket(self, ticket_id: str) -> dict[str, Any]:
        """A ticket as the helpdesk shows it."""
        found: dict[str, Any] = self._call("GET", f"/_sim/tickets/{quote(ticket_id, safe='')}")["ticket"]
        return found

    def person_changes(self, ticket_id: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Change a ticket as a person at the helpdesk would: `team_id`, `assignee_id`, `status`, `tags`, `comment`,
        `by`, `at`.
        """
        found: dict[str, Any] = self._call("PUT", f"/_sim/tickets/{quote(ticket_id, safe='')}", dict(change))["ticket"]
        return found

    def subscription(self, subscription_id: str) -> dict[str, Any]:
        """A subscription as the payments' API shows it."""
        return self._call("GET", f"/_sim/subscriptions/{quote(subscription_id, safe='')}")

    def person_subscribes(self, subscription_id: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Change a subscription as a person at the dashboard would: `price`, `status`, `cancel_at_period_end`."""
        return self._call("PUT", f"/_sim/subscriptions/{quote(subscription_id, safe='')}", dict(change))

    def texts(self, number: str) -> list[dict[str, Any]]:
        """The texts to a number, the newest first, as the SMS provider shows them."""
        found: list[dict[str, Any]] = self._call("GET", f"/_sim/sms/{quote(number, safe='')}")["messages"]
        return found

    def change_texts(self, number: str, change: Mapping[str, Any]) -> None:
        """What becomes of the texts to a number: `status`, `error_code`, `body` (None: redacted)."""
        self._call("PUT", f"/_sim/sms/{quote(number, safe='')}", dict(change))

    def accept_keys(self, **keys: list[str] | None) -> None:
        """Which API keys each provider accepts; None accepts any."""
        self._call("PUT", "/_sim/credentials", keys)

    def prune_keys(self, older_than_seconds: float = 0) -> int:
        """Let the payments and the keyed endpoint forget keys of at least this age."""
        return int(self._call("POST", "/_sim/keys/prune", {"older_than_seconds": older_than_seconds})["pruned"])

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(
                method, path, payload, {"Content-Type": "application/json"} if payload is not None else {}
            )
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise SimulatorRefused(f"{method} {path}: {response.status} {text[:200].decode('utf-8', 'replace')}")
        answer: dict[str, Any] = json.loads(text)
        return answer
