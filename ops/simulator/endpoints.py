"""Two plain endpoints, for the two ends of what providers promise about repeats.

`POST /keyed/{resource}` honours `Idempotency-Key` as draft-ietf-httpapi-idempotency-key-header and Stripe describe
it: the same key gives the stored answer (with `Idempotent-Replayed: true`) and no second effect, 409 while the first
call is under way, 422 with another body, 400 without a key. `GET /keyed/{resource}?key=...` lists what was made under
a key. Keys can be pruned; what was made stays.

`POST /blind/{resource}` honours nothing: every call makes one more.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

from ops.simulator.http import Call, Reply, Request, reply_json
from ops.simulator.keys import Keys, Refused
from ops.simulator.record import Record, now_text

MAX_OBJECTS = 100_000


def _error(status: int, message: str, code: str) -> Reply:
    return reply_json(status, {"error": {"message": message, "code": code}})


class Endpoints:
    """Objects made under keys, and keys with their answers. The caller holds the world's lock."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._keys = Keys()
        self._objects: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._made = 0

    def call(self, request: Request) -> Call | None:
        """What the request asks for, or None when it is not for these endpoints."""
        _, provider, resource, *rest = [*request.path.split("/"), "", ""]
        if provider not in ("keyed", "blind"):
            return None
        if not resource or any(rest):
            return Call(provider, "unknown", "", lambda: _error(404, "no such resource", "NOT_FOUND"))
        if request.method == "GET" and provider == "keyed":
            return Call(provider, "lookup", resource, lambda: self._lookup(resource, request.query.get("key", "")))
        if request.method != "POST":
            return Call(provider, "unknown", resource, lambda: _error(405, "method not allowed", "METHOD_NOT_ALLOWED"))
        if provider == "blind":
            return Call(provider, "create", resource, lambda: self._make(request, provider, resource, ""))
        return self._keyed(request, resource)

    def prune(self, older_than_seconds: float) -> int:
        """Forget keys of at least this age, as providers do after their window. Gives how many."""
        return self._keys.prune(older_than_seconds)

    def _keyed(self, request: Request, resource: str) -> Call:
        key = request.headers.get("idempotency-key", "")
        digest = hashlib.sha256(request.body).hexdigest()

        def answer(reply: Reply) -> Call:
            return Call("keyed", "create", resource, lambda: reply)

        if not key:
            return answer(_error(400, "Idempotency-Key is required", "IDEMPOTENCY_KEY_MISSING"))
        index = (resource, key)
        claimed = self._keys.claim(index, digest)
        if claimed is Refused.REUSED:
            return answer(_error(422, "the key was used with another body", "IDEMPOTENCY_KEY_REUSED"))
        if claimed is Refused.IN_USE:
            return answer(_error(409, "a call with this key is under way", "IDEMPOTENCY_KEY_IN_USE"))
        if isinstance(claimed, Reply):
            return answer(claimed)

        def perform() -> Reply:
            claimed.reply = self._make(request, "keyed", resource, key)
            return claimed.reply

        def abandon() -> None:
            self._keys.forget(index)

        def settle_as(reply: Reply) -> None:
            claimed.reply = reply

        return Call("keyed", "create", resource, perform, abandon, settle_as)

    def _make(self, request: Request, provider: str, resource: str, key: str) -> Reply:
        self._made += 1
        made = {"id": f"{resource}_{self._made}", "resource": resource, "key": key, "created_at": now_text()}
        while len(self._objects) >= MAX_OBJECTS:
            self._objects.popitem(last=False)
        self._objects[made["id"]] = made
        params = hashlib.sha256(request.body).hexdigest()
        self._record.effect(
            request,
            provider=provider,
            kind="create",
            target=resource,
            key=key,
            params=params,
            detail={"id": made["id"]},
        )
        return reply_json(201, made)

    def _lookup(self, resource: str, key: str) -> Reply:
        found = [made for made in self._objects.values() if made["resource"] == resource and made["key"] == key]
        return reply_json(200, {"data": found})
