"""A person signs in with their browser (authorization code with PKCE, RFC 7636 and 8252): no password comes here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from infra.config import LOGIN_REDIRECTS
from ops.stack import Stack
from ops.tokens import LoginFailed, Token, Tokens

PATIENCE_SECONDS = 300.0
Visit = Callable[[str], None]
"""Brings a person to that address, where they sign in."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sign-in: what only we know of it, and where it is to come back to."""

    redirect_uri: str
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)
    state: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    def address(self, login_url: str, client_id: str) -> str:
        """Where the person signs in."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid",
            "state": self.state,
            "code_challenge_method": "S256",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        }
        return f"{login_url}/oauth2/authorize?{urlencode(asked)}"

    def code_in(self, address: str) -> str | None:
        """The code in the address the browser came back with; None if it is not of this attempt.

        Raises `LoginFailed` with what the pool says instead.
        """
        query: Mapping[str, list[str]] = parse_qs(urlsplit(address).query)
        (state,) = query.get("state", [""])[:1]
        if not hmac.compare_digest(state.encode(), self.state.encode()):
            return None
        if "error" in query:
            raise LoginFailed(f"the user pool says: {' '.join(query['error'] + query.get('error_description', []))}")
        return query.get("code", [""])[0] or None


def sign_in(
    stack: Stack,
    tokens: Tokens,
    visit: Visit,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    redirects: Sequence[str] = LOGIN_REDIRECTS,
) -> Token:
    """Sign a person in with a browser on this machine, and keep their session. Of `redirects` the first is taken whose
    port is free.

    Raises `LoginFailed` if they do not come back in time, or the pool refuses.
    """
    with _listening(redirects) as listener:
        attempt = Attempt(listener.redirect_uri)
        listener.attempt = attempt
        visit(attempt.address(tokens.login_url, stack.output("PeopleClientId")))
        if not listener.came.wait(patience_seconds):
            raise LoginFailed(f"nobody has signed in for {patience_seconds:.0f} seconds")
        if listener.failure is not None:
            raise listener.failure
        return _redeem(stack, tokens, attempt, listener.code)


def sign_in_elsewhere(stack: Stack, tokens: Tokens, visit: Visit, came_to: Callable[[], str]) -> Token:
    """Sign a person in with a browser on another machine: `came_to` asks them for the address that it ended at.

    Raises `LoginFailed`.
    """
    attempt = Attempt(LOGIN_REDIRECTS[0])
    visit(attempt.address(tokens.login_url, stack.output("PeopleClientId")))
    code = attempt.code_in(came_to().strip())
    if code is None:
        raise LoginFailed("that is not the address that this sign-in ends at: copy it whole, from `http://localhost`")
    return _redeem(stack, tokens, attempt, code)


def _redeem(stack: Stack, tokens: Tokens, attempt: Attempt, code: str) -> Token:
    return tokens.redeem(
        {
            "grant_type": "authorization_code",
            "client_id": stack.output("PeopleClientId"),
            "code": code,
            "redirect_uri": attempt.redirect_uri,
            "code_verifier": attempt.verifier,
        }
    )


class _Listener(ThreadingTCPServer):
    """Waits on the loopback for the browser to bring the code. A browser may open connections that it never uses."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Returning)
        self.redirect_uri = f"http://localhost:{port}/"
        self.attempt: Attempt | None = None
        self.came = threading.Event()
        self.code = ""
        self.failure: LoginFailed | None = None
        self._lock = threading.Lock()

    def take(self, address: str) -> tuple[int, str]:
        """Look at an address that somebody came with. Gives what to answer."""
        with self._lock:
            if self.attempt is None or self.code or self.failure:
                return 404, "Nobody is signing in."
            try:
                code = self.attempt.code_in(address)
            except LoginFailed as exc:
                self.failure = exc
                return 403, "You were not signed in. The command line says why."
            if code is None:
                return 404, "This is no sign-in that was begun here."
            self.code = code
            return 200, "You are signed in. You can close this window."


class _Returning(BaseHTTPRequestHandler):
    server: _Listener  # only it makes these
    timeout = 10

    def do_GET(self) -> None:
        status, words = self.server.take(self.path)
        body = f"<!doctype html><meta charset=utf-8><title>Holdfast</title><p>{words}</p>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")  # the address holds the code
        self.end_headers()
        self.wfile.write(body)
        if status != 404:
            self.server.came.set()

    def log_message(self, *_: object) -> None:
        """The code is in the address: it is written nowhere."""


@contextmanager
def _listening(redirects: Sequence[str]) -> Iterator[_Listener]:
    for redirect in redirects:
        try:
            listener = _Listener(urlsplit(redirect).port or 0)
        except OSError:
            continue  # somebody else has that port
        break
    else:
        ports = ", ".join(str(urlsplit(redirect).port) for redirect in redirects)
        raise LoginFailed(f"the ports {ports} of this machine are taken: `holdfast login --no-browser` needs none")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
