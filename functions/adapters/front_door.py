"""The public address of our own webhooks, as a sender out there reaches it: name, certificate, gateway and all."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import httpx

TIMEOUT: Final = httpx.Timeout(10.0, connect=5.0)
_AGENT: Final = {"user-agent": "holdfast-synthetic"}
_LOG = logging.getLogger(__name__)


class HttpFrontDoor:
    """`ports.FrontDoor`."""

    def __init__(self, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            timeout=TIMEOUT, follow_redirects=False, trust_env=False, transport=transport, headers=_AGENT
        )

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """See the port. One request, over a connection of its own: one that is kept open would not see that the name or
        the certificate is gone.
        """
        try:
            answer = self._http.post(url, content=body, headers={**headers, "connection": "close"})
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            _LOG.warning("the public address was not reached", extra={"reason": type(exc).__name__})
            return 0
        return answer.status_code
