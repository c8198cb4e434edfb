"""What DynamoDB would charge for the writes of some code, in write units (1 KB each), counted by hooks in the SDK.

A put costs its item, an update its item as it is afterwards, each rounded up to whole kilobytes; in a transaction twice
that. An index that holds all attributes costs as much again for a new item, and twice that where its key has changed:
one entry goes, another comes. One that holds keys costs a unit for a new item, two where its key has changed, and
nothing else. A refused write costs one unit at least, and is counted as such.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from tests import aws_tables

KILOBYTE = 1024
_SHARED = "dynamodb.Query"


def size_of(value: Mapping[str, Any]) -> int:
    """Bytes of one typed value, as DynamoDB counts: a number by half its digits, maps and lists by their parts."""
    ((kind, content),) = value.items()
    if kind == "M":
        return 3 + sum(1 + len(name.encode()) + size_of(one) for name, one in content.items())
    if kind == "L":
        return 3 + sum(1 + size_of(one) for one in content)
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return math.ceil(len(content) / 2) + 1
    if kind == "SS":
        return sum(len(one.encode()) for one in content)
    return 1 if kind == "BOOL" else len(content)


def size_of_item(item: Mapping[str, Any]) -> int:
    """Bytes of an item with its attributes' names."""
    return sum(len(name.encode()) + size_of(value) for name, value in item.items())


@dataclass
class Bill:
    """Requests by `service.Operation`, and write units, since it was last cleared."""

    requests: Counter[str] = field(default_factory=Counter)
    write_units: int = 0

    def clear(self) -> None:
        """Begin anew."""
        self.requests.clear()
        self.write_units = 0

    def said(self, events: int = 1) -> str:
        """Per event. What the sweeper asks its index is shared by everything that is due, and said apart."""
        own = {name: number for name, number in sorted(self.requests.items()) if name != _SHARED}
        each = ", ".join(f"{number / events:g} {name}" for name, number in own.items())
        shared = f"; {self.requests[_SHARED]} queries of ticks, shared" if self.requests[_SHARED] else ""
        return f"{self.write_units / events:g} write units, {sum(own.values()) / events:g} requests ({each}){shared}"


class Billing:
    """Counts what some clients ask for while it is open."""

    def __init__(self, dynamodb: Any, *others: Any) -> None:
        self.bill = Bill()
        self._dynamodb = dynamodb
        self._clients = (dynamodb, *others)
        self._is_open = False
        self._lock = threading.RLock()  # the worker asks from several threads
        self._own = threading.local()  # what is looked up for the bill is not on it

    @contextmanager
    def open(self) -> Iterator[Bill]:
        """Count from here on, on top of what the bill says already. It may be opened within itself."""
        was_open, self._is_open = self._is_open, True
        try:
            yield self.bill
        finally:
            self._is_open = was_open

    @contextmanager
    def attached(self) -> Iterator[Billing]:
        """Hooked into the clients."""
        for client in self._clients:
            client.meta.events.register("before-send.*", self._sent)
        original = self._dynamodb._make_api_call
        self._dynamodb._make_api_call = self._charged(original)
        try:
            yield self
        finally:
            self._dynamodb._make_api_call = original
            for client in self._clients:
                client.meta.events.unregister("before-send.*", self._sent)

    def _sent(self, event_name: str, **_: object) -> None:
        if self._is_open and not getattr(self._own, "is_looking", False):
            self.bill.requests[event_name.removeprefix("before-send.")] += 1

    def _charged(self, call: Any) -> Any:
        def charged(operation: str, request: Any) -> Any:
            if not self._is_open:
                return call(operation, request)
            with self._lock:
                writes = _writes(operation, request)
                before = [self._stored(call, write) for write in writes]
                try:
                    answer = call(operation, request)
                except ClientError:
                    self.bill.write_units += len(writes)
                    raise
                factor = 2 if operation == "TransactWriteItems" else 1
                for write, old in zip(writes, before, strict=True):
                    self.bill.write_units += factor * _units(write["TableName"], old, self._stored(call, write))
                return answer

        return charged

    def _stored(self, call: Any, write: Mapping[str, Any]) -> Mapping[str, Any]:
        table = write["TableName"]
        keys = write.get("Key") or {name: write["Item"][name] for name in aws_tables.KEYS[table]}
        self._own.is_looking = True
        try:
            item: Mapping[str, Any] = call("GetItem", {"TableName": table, "Key": keys}).get("Item", {})
        finally:
            self._own.is_looking = False
        return item


def _writes(operation: str, request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if operation in ("PutItem", "UpdateItem", "DeleteItem"):
        return [request]
    if operation == "TransactWriteItems":
        return [part[verb] for part in request["TransactItems"] for verb in part if verb != "ConditionCheck"]
    return []


def _units(table: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    units = math.ceil(max(size_of_item(before), size_of_item(after), 1) / KILOBYTE)
    for keys in aws_tables.INDEXES.get(table, {}).values():
        old, new = ([item.get(key) for key in keys] for item in (before, after))
        was_in, is_in = None not in old, None not in new
        entries = 2 if was_in and is_in and old != new else int(was_in or is_in)
        if table in aws_tables.KEYS_ONLY:
            units += 0 if old == new else entries  # a key is far under 1 KB
            continue
        units += entries * math.ceil(max(size_of_item(before), size_of_item(after)) / KILOBYTE)
    return units
