"""What answers of the operator API are held to while schemathesis makes up its requests."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
"""0 x 5xx, 0 undocumented answers. That a valid request may be refused for what is stored is what problems are for."""


def examples(of_each_call: int) -> settings:
    """So many requests of each call."""
    return settings(
        max_examples=of_each_call,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
