"""Each call of the operator API has its route at the gateway: by it the access log and the metrics tell them apart."""

from __future__ import annotations

import json
import re

from functions.operator_api.caller import PUBLIC
from infra.operator_api import CALLS, PUBLIC_CALLS
from ops.operator_openapi import PATH


def shape(path: str) -> str:
    """A path without the names of its parameters, of which the gateway's may be greedy."""
    return re.sub(r"\{[^}]+\}", "{}", path)


def test_every_documented_call_has_its_route() -> None:
    routed = {(method.value, shape(path)) for path, methods in CALLS.items() for method in methods}
    routed |= {("GET", path) for path in PUBLIC_CALLS}
    documented = {
        (method.upper(), shape(path))
        for path, item in json.loads(PATH.read_text(encoding="utf-8"))["paths"].items()
        for method in item
    }
    assert documented == routed


def test_what_is_public_at_the_gateway_is_what_the_function_asks_no_token_for() -> None:
    assert set(PUBLIC_CALLS) == set(PUBLIC)
