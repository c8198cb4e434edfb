"""Which hosts an integration may be called at: those of the catalog, whatever its parameter says.

Whoever may write the parameter cannot by that alone send credentials and customers' data elsewhere: a host is added in
`functions/catalog/integrations.toml`, where it is reviewed and deployed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from functions.core.integration import Integration

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
WILDCARD = "*."  # before a suffix: every name below it, not the suffix itself
HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts by integration. On the local stage the loopback is allowed too, over http as well, on any port.

    An integration that names no host, or that the catalog does not know, may not be called anywhere else.
    """

    by_integration: Mapping[str, frozenset[str]]
    is_loopback_allowed: bool = False

    @staticmethod
    def of(integrations: Mapping[str, Integration], *, is_loopback_allowed: bool) -> AllowedHosts:
        """Those of the catalog."""
        return AllowedHosts({name: each.hosts for name, each in integrations.items()}, is_loopback_allowed)

    def why_not(self, integration: str, base_url: str) -> str | None:
        """Why calls below this URL are refused and what to do about it; None if they are allowed. Quotes nothing of it.

        Allowed is https on its own port to a name of the catalog, letter for letter but for their case: no other
        writing of a host (an address, a trailing dot, another alphabet, percent signs) is taken for one.
        """
        try:
            parts = urlsplit(base_url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return "base_url is no URL"
        # `urlsplit` drops line breaks, and lowers letters of other alphabets to ours: such a host is not what it says.
        if not base_url.isascii() or not base_url.isprintable() or any(mark in base_url for mark in " \\"):
            return "base_url holds characters that no URL has"
        if parts.username is not None or parts.password is not None:
            return "base_url holds a user name or password"
        if self.is_loopback_allowed and host in LOOPBACK and parts.scheme in ("http", "https"):
            return None
        if parts.scheme != "https" or port not in (None, HTTPS_PORT):
            return "base_url is not https on its own port"
        names = self.by_integration.get(integration, frozenset())
        if any(_is(host, name) for name in names):
            return None
        known = ", ".join(sorted(names)) or "none"
        return (
            f"base_url names a host that the catalog does not list (it lists: {known}); correct the parameter, or add "
            f"the host to hosts of [integrations.{integration}] in functions/catalog/integrations.toml and deploy"
        )


def _is(host: str, name: str) -> bool:
    if not name.startswith(WILDCARD):
        return host == name
    below = host.removesuffix(name.removeprefix("*"))
    return below != host and all(below.split("."))
