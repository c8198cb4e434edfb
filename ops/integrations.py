"""Integrations through the operator API: how each is, and an operator's word on the health of one, for a time."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from functions.core.gate import Health
from ops.operator_api import Api, Document, connect
from ops.stack import Stack

PATH: Final = "/platform/integrations"


class Integrations:
    """One stage's integrations. Every method raises what a call of the API raises."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def every(self) -> list[Document]:
        """Each of the stage's catalog, as it is now."""
        return list(self._api.call("GET", PATH)["integrations"])

    def one(self, name: str) -> Document:
        """One of them, as it is now."""
        return self._api.call("GET", _of(name))

    def force(self, name: str, state: Health, lasts: str, reason: str) -> Document:
        """It is so, for so long (`30m`), whatever the machine says. Gives it as it is then, and as it was `before`."""
        return self._put(name, {"state": state.value, "for": lasts, "reason": reason})

    def lift(self, name: str, reason: str) -> Document:
        """What the machine says holds again. `is_changed` False: it did already."""
        return self._put(name, {"state": None, "reason": reason})

    def _put(self, name: str, body: Document) -> Document:
        return self._api.call("PUT", f"{_of(name)}/health", body=body)


def of_stage(stack: Stack) -> Integrations:
    """The stage's."""
    return Integrations(connect(stack))


def _of(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"
