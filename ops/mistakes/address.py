"""Which address was signed, by which method and, of a form, under which content type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from urllib.parse import quote, unquote, urlsplit

from ops.findings import Code, Finding
from ops.mistakes.change import Change
from ops.shapes import MAX_HEADER_CHARACTERS
from ops.verify import Request

# --------------------------------------------------------------------------------------------------------- the address

_PROXY = (
    "The address that was signed is the one that the sender was given. Behind a proxy, declare it as the source's "
    "`public_url`, or register the address that arrives."
)


def addresses() -> Iterator[Change]:
    """Another address was signed than the one that arrived."""
    for group, code, said, rewrite, is_likely in _URL_REWRITES:
        finding = Finding(code, f"The signature covers the address {said}.", _PROXY)
        yield Change(group, finding, partial(_with_url, rewrite=rewrite), is_likely)


def _with_url(request: Request, rewrite: Callable[[str, Mapping[str, str]], str]) -> Request | None:
    url = request.delivery.url
    if len(url) > MAX_HEADER_CHARACTERS:
        return None
    try:
        written = rewrite(url, request.delivery.headers)
    except ValueError:
        return None  # an address that is none
    if not written or written == url or len(written) > 2 * MAX_HEADER_CHARACTERS:
        return None
    return replace(request, delivery=replace(request.delivery, url=written))


def _with_scheme(url: str, scheme: str) -> str:
    return urlsplit(url)._replace(scheme=scheme).geturl() if "://" in url else ""


def _with_port(url: str, port: str) -> str:
    parts = urlsplit(url)
    host = re.sub(r":\d*\Z", "", parts.netloc)
    return parts._replace(netloc=host + port).geturl() if host else ""


def _at_port(url: str, _headers: Mapping[str, str], port: int) -> str:
    return _with_port(url, f":{port}")


def _with_host(url: str, host: str) -> str:
    first = host.partition(",")[0].strip()
    return urlsplit(url)._replace(netloc=first).geturl() if first else ""


def _with_path(url: str, path: str) -> str:
    return urlsplit(url)._replace(path=path).geturl()


def _forwarded(headers: Mapping[str, str], member: str) -> str:
    found = re.search(rf'{member}="?([^;,"]+)', headers.get("forwarded", "")[:MAX_HEADER_CHARACTERS], re.IGNORECASE)
    return found.group(1) if found else ""


def _original(url: str, headers: Mapping[str, str]) -> str:
    """With the path and query that a proxy saw."""
    seen = next(
        (headers[name] for name in ("x-original-uri", "x-original-url", "x-rewrite-url") if headers.get(name)), ""
    )
    if "://" in seen:
        return seen
    path, mark, query = seen.partition("?")
    return urlsplit(url)._replace(path=path, query=query if mark else "").geturl() if seen.startswith("/") else ""


def _without_segments(url: str, number: int) -> str:
    segments = urlsplit(url).path.split("/")
    return _with_path(url, "/" + "/".join(segments[1 + number :])) if len(segments) > 1 + number else ""


def _slash(url: str) -> str:
    path = urlsplit(url).path
    return _with_path(url, path[:-1] if path.endswith("/") else path + "/")


def _sorted_query(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(query="&".join(sorted(parts.query.split("&")))).geturl()


UrlRewrite = Callable[[str, Mapping[str, str]], str]
_URL_REWRITES: tuple[tuple[str, Code, str, UrlRewrite, bool], ...] = (
    ("url scheme", Code.URL_SCHEME, "with https, where http arrived", lambda u, _: _with_scheme(u, "https"), True),
    ("url scheme", Code.URL_SCHEME, "with http, where https arrived", lambda u, _: _with_scheme(u, "http"), True),
    (
        "url host",
        Code.URL_HOST,
        "with the host of x-forwarded-host",
        lambda u, h: _with_host(u, h.get("x-forwarded-host", "")),
        True,
    ),
    (
        "url host",
        Code.URL_HOST,
        "with the host of the Forwarded header",
        lambda u, h: _with_host(u, _forwarded(h, "host")),
        True,
    ),
    (
        "url host",
        Code.URL_HOST,
        "with the host of x-original-host",
        lambda u, h: _with_host(u, h.get("x-original-host", "")),
        False,
    ),
    (
        "url host",
        Code.URL_HOST,
        "with the host of the Host header",
        lambda u, h: _with_host(u, h.get("host", "")),
        True,
    ),
    (
        "url host",
        Code.URL_HOST,
        "with its host in lower case",
        lambda u, _: _with_host(u, urlsplit(u).netloc.lower()),
        True,
    ),
    (
        "url host",
        Code.URL_HOST,
        "without the user and password in it",
        lambda u, _: _with_host(u, urlsplit(u).netloc.rpartition("@")[2]),
        False,
    ),
    ("url port", Code.URL_PORT, "without its port", lambda u, _: _with_port(u, ""), True),
    *(
        ("url port", Code.URL_PORT, f"with port {port}", partial(_at_port, port=port), False)
        for port in (443, 80, 8080, 8443, 3000)
    ),
    (
        "url port",
        Code.URL_PORT,
        "with the port of x-forwarded-port",
        lambda u, h: _with_port(u, f":{h['x-forwarded-port']}") if "x-forwarded-port" in h else "",
        False,
    ),
    ("url path", Code.URL_PATH, "with the path that x-original-uri or its like names", _original, True),
    (
        "url path",
        Code.URL_PATH,
        "with the prefix of x-forwarded-prefix before its path",
        lambda u, h: _with_path(u, h.get("x-forwarded-prefix", "").rstrip("/") + urlsplit(u).path),
        True,
    ),
    ("url path", Code.URL_PATH, "without the first segment of its path", lambda u, _: _without_segments(u, 1), False),
    (
        "url path",
        Code.URL_PATH,
        "without the first two segments of its path",
        lambda u, _: _without_segments(u, 2),
        False,
    ),
    ("url path", Code.URL_PATH, "without any path", lambda u, _: _with_path(u, ""), False),
    (
        "url path",
        Code.URL_PATH,
        "as the path alone, without scheme and host",
        lambda u, _: urlsplit(u)._replace(scheme="", netloc="").geturl(),
        False,
    ),
    (
        "url slash",
        Code.URL_SLASH,
        "with or without the slash at the end of its path, the other way round",
        lambda u, _: _slash(u),
        True,
    ),
    ("url query", Code.URL_QUERY, "without its query", lambda u, _: urlsplit(u)._replace(query="").geturl(), True),
    ("url query", Code.URL_QUERY, "with its query sorted", lambda u, _: _sorted_query(u), False),
    (
        "url query",
        Code.URL_QUERY,
        "with the query that x-original-uri or its like names",
        lambda u, h: urlsplit(u)._replace(query=urlsplit(_original(u, h) or u).query).geturl(),
        False,
    ),
    (
        "url query",
        Code.URL_QUERY,
        "without its fragment, which is never sent",
        lambda u, _: urlsplit(u)._replace(fragment="").geturl(),
        False,
    ),
    ("url escapes", Code.URL_ESCAPES, "percent-decoded", lambda u, _: unquote(u), True),
    (
        "url escapes",
        Code.URL_ESCAPES,
        "percent-encoded",
        lambda u, _: quote(u, safe="/:?&=%#@+,;~!$'()*[]", errors="replace"),
        False,
    ),
    (
        "url escapes",
        Code.URL_ESCAPES,
        "with its query percent-encoded once more",
        lambda u, _: urlsplit(u)._replace(query=quote(urlsplit(u).query, safe="&=%")).geturl(),
        False,
    ),
    (
        "url escapes",
        Code.URL_ESCAPES,
        "with %20 for + in its query",
        lambda u, _: urlsplit(u)._replace(query=urlsplit(u).query.replace("+", "%20")).geturl(),
        False,
    ),
    (
        "url escapes",
        Code.URL_ESCAPES,
        "with %xx in lower case",
        lambda u, _: re.sub(r"%[0-9A-F]{2}", lambda found: found.group().lower(), u),
        False,
    ),
    (
        "url escapes",
        Code.URL_ESCAPES,
        "with %XX in upper case",
        lambda u, _: re.sub(r"%[0-9a-f]{2}", lambda found: found.group().upper(), u),
        False,
    ),
)


# ------------------------------------------------------------------------------------------------- method, content type


def methods() -> Iterator[Change]:
    """Another method was signed."""
    for method in ("POST", "GET", "PUT", "PATCH", "DELETE"):
        finding = Finding(
            Code.WRONG_METHOD,
            f"The signature covers the method {method}; the request was made, or recorded, with another.",
            "Sign the method that the request is sent with, in capitals.",
        )
        yield Change("method", finding, partial(_with_method, method=method), is_likely=method == "POST")


def _with_method(request: Request, method: str) -> Request | None:
    if request.delivery.method == method:
        return None
    return replace(request, delivery=replace(request.delivery, method=method))


def content_types() -> Iterator[Change]:
    """The body was signed as another kind of content, where the fields of a form are signed."""
    for said, content_type in (("a form", "application/x-www-form-urlencoded"), ("JSON", "application/json")):
        finding = Finding(
            Code.CONTENT_TYPE,
            f"The signature is right for a body that is {said}; the Content-Type says otherwise, or is missing.",
            f"Send `Content-Type: {content_type}`: it decides what of the body is signed.",
        )
        yield Change(
            "content type",
            finding,
            partial(_with_content_type, content_type=content_type),
            is_likely=content_type != "application/json",
        )


def _with_content_type(request: Request, content_type: str) -> Request:
    headers = {**request.delivery.headers, "content-type": content_type}
    return replace(request, delivery=replace(request.delivery, headers=headers))
