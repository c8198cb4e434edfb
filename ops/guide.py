"""The page for a sender's developers: where to post, how to sign, what the answers mean. In Markdown.

Everything in it is read off what ingress itself goes by: the provider's row, the source's entry, the table of answers,
the limits. So a page cannot say what the code does not do. Its examples are run by a test.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from functions.core.event import MAX_BODY_BYTES
from functions.core.source import IdentityRule
from functions.ingress.answers import Refused, Rejection, answer_to_refusal
from functions.ingress.handler import ANSWER_SECONDS
from functions.ingress.request import MAX_HEADER_BYTES, MAX_HEADERS
from functions.signatures.providers import Content, Endpoint, scheme_of
from functions.signatures.scheme import (
    TOLERANCE_SECONDS,
    Basic,
    Encoding,
    Headers,
    KeyedDigest,
    Moment,
    SecretForm,
    SharedSecret,
)
from functions.signatures.special import AnyOf, BodyDigest, FirstCase, PublicKeySignature

SECRET_VARIABLE: Final = "WEBHOOK_SECRET"  # noqa: S105  # a variable's name
TIMEOUT_SECONDS: Final = 5  # what a sender should wait at least; we answer sooner
SENT_BY_HAND: Final = frozenset(
    {"generic-hmac", "generic-apikey", "generic-basic", "static-header", "standard-webhooks"}
)
"""Providers that are no product: their sender is a program that somebody writes, so an example is of use."""

CHOSEN_BY_US: Final = SENT_BY_HAND | {"github", "gitlab", "okta", "postmark", "razorpay", "richpanel", "twitch"}
"""Where a person types the secret in, so that it may be one of our making. The others issue theirs."""

# Where the address and the secret go, in the words of the sender's own pages; only what these pages say.
_AT_THE_SENDER: Final[Mapping[str, str]] = {
    # https://docs.stripe.com/webhooks
    "stripe": "In Workbench, tab Webhooks, add a destination with the address as its endpoint URL. The endpoint's "
    "signing secret (`whsec_...`) is the secret.",
    # https://docs.github.com/en/webhooks/using-webhooks/creating-webhooks
    "github": "In the repository's (or organization's) Settings, Webhooks, Add webhook: the address is the Payload "
    "URL, the secret goes into Secret. Choose the content type application/json.",
    # https://docs.gitlab.com/user/project/integrations/webhooks/
    "gitlab": "In the project's Settings, Webhooks: the address is the URL, the secret goes into Secret token.",
    # https://docs.slack.dev/apis/events-api/using-http-request-urls
    # https://docs.slack.dev/authentication/verifying-requests-from-slack
    "slack": "In the app's settings: under Event Subscriptions the address is the Request URL; under Basic Information "
    "the Signing Secret is the secret.",
    # https://www.twilio.com/docs/usage/webhooks/webhooks-security
    "twilio": "The address goes where the webhook of the phone number (or messaging service) is configured. The "
    "account's primary Auth Token is the secret.",
    # https://developers.zoom.us/docs/api/webhooks/
    "zoom": "In the app's event subscription the address is the Event notification endpoint URL; the app's Secret "
    "Token is the secret.",
    # https://docs.discord.com/developers/interactions/overview#setting-up-an-endpoint
    "discord": "In the app's General Information the address is the Interactions Endpoint URL; the Public Key there is "
    "what we verify with.",
}

_NAMES: Final[Mapping[str, str]] = {
    "body": "the body, byte for byte as it is sent",
    "timestamp": "the moment of signing, written as in its place in the request",
    "id": "the delivery's id, as in its header",
    "url": "the address as above, with its query string if there is one",
    "method": "the request's method in capitals",
    "form": "the form's fields sorted by name, each name followed by its value, nothing in between",
}
_MOMENTS: Final[Mapping[Moment, str]] = {
    Moment.SECONDS: "seconds since 1970, UTC",
    Moment.MILLISECONDS: "milliseconds since 1970, UTC",
    Moment.RFC3339: "a date-time with its zone, such as `2030-01-31T12:00:00Z`",
}
_PART: Final = re.compile(r"\{(body|timestamp|id|url|method|form)\}")


def page(endpoint: Endpoint, url: str) -> str:
    """The whole page of one source. Holds no secret. `url` is the address that the sender is given."""
    source, provider = endpoint.source, endpoint.provider
    scheme = scheme_of(provider, source.scheme)
    parts = [
        f"# Sending webhooks to `{source.id}`",
        "",
        "## Where",
        "",
        f"`POST {url}`",
        "",
        *_where(endpoint),
        "",
        "## Signature",
        "",
        *_scheme_lines(scheme),
        "",
        *_common_signature_lines(endpoint, scheme),
    ]
    if provider.name in SENT_BY_HAND:
        example = _Example(endpoint, scheme, url)
        parts += ["", "## Examples", "", *_examples(example)]
    parts += ["", "## Answers", "", *_answers(endpoint)]
    parts += ["", "## The same event twice", "", *_identity(endpoint)]
    parts += ["", "## Limits", "", *_limits(endpoint)]
    parts += ["", "## Trying it out", "", *_trying(url, scheme)]
    parts += ["", "## A new secret", "", *_rotation(provider.name), ""]
    return "\n".join(parts)


# -------------------------------------------------------------------------------------------------------------- address


def _where(endpoint: Endpoint) -> Iterator[str]:
    known = _AT_THE_SENDER.get(endpoint.provider.name)
    if known:
        yield known
    elif endpoint.provider.name in SENT_BY_HAND:
        yield "Keep the secret where only the sending program can read it."
    else:
        yield (
            f"Give {endpoint.provider.name} this address where it asks for its webhook's URL, and tell us the secret "
            "that it shows there (or enter the one you got from us), by a way that nobody else reads."
        )
    content = endpoint.content
    yield ""
    yield {
        Content.JSON: "The body is JSON.",
        Content.FORM: "The body is a form, `application/x-www-form-urlencoded`.",
        Content.JSON_OR_FORM: "The body is JSON, or a form that says so (`application/x-www-form-urlencoded`).",
        Content.ANY: "The body is best JSON. A Content-Type of JSON or of a form is taken at its word.",
    }[content] + " Send it uncompressed."


# ------------------------------------------------------------------------------------------------------------ signature


def _scheme_lines(scheme: object) -> list[str]:
    """A scheme in words, one list item a fact."""
    match scheme:
        case KeyedDigest():
            return list(_digest_lines(scheme))
        case SharedSecret():
            return [f"- Header {_code(scheme.header)}: {_and_then(scheme.prefix, 'the secret itself')}."]
        case Basic():
            return ["- Header `authorization`: HTTP Basic (RFC 7617). The secret is `user:password`."]
        case PublicKeySignature():
            return [
                f"- Header {_code(scheme.headers.signature)}: the signature, in {scheme.encoding.value}.",
                "- It is made with the sender's private key; we have its public key.",
                f"- Header {_code(scheme.headers.timestamp)}: the moment of signing.",
                "- Signed is: the moment as in its header, then the body, byte for byte.",
            ]
        case BodyDigest():
            return [
                "- The signature stands inside the body and covers some members of it, as the sender documents.",
                f"- It is an HMAC-SHA256 in {scheme.encoding.value}; the key is {_key_words(scheme.secret_form)}.",
            ]
        case AnyOf():
            return _choice("Signed in more than one way, of which one is enough:", scheme.schemes)
        case FirstCase():
            return _choice(
                "The first of these that the request carries decides:", [case.scheme for case in scheme.cases]
            )
        case _:
            inner = getattr(scheme, "scheme", None)  # a scheme around another adds a check of ours, no way to sign
            return (
                _scheme_lines(inner) if inner is not None else ["- As the sender documents it for the header it names."]
            )


def _choice(heading: str, schemes: Sequence[object]) -> list[str]:
    lines = [heading]
    for number, one in enumerate(schemes, start=1):
        lines += ["", f"Way {number}:", "", *_scheme_lines(one)]
    return lines


def _digest_lines(scheme: KeyedDigest) -> Iterator[str]:
    for names in scheme.headers:
        yield f"- Header {_code(names.signature)}: {_signature_words(scheme)}."
        if names.timestamp:
            yield f"- Header {_code(names.timestamp)}: the moment of signing, {_MOMENTS[scheme.moment]}."
        if names.id:
            yield f"- Header {_code(names.id)}: the delivery's id, the same each time it is sent."
    what = "hash of the secret followed by the signed content" if scheme.is_plain_hash else "HMAC of the signed content"
    algorithm = scheme.algorithm.upper().replace("SHA", "SHA-")
    yield f"- The digest is the {algorithm} {what}, written in {_writing(scheme)}."
    yield f"- The key is {_key_words(scheme.secret_form)}."
    if scheme.public_key is not None:
        yield (
            f"- Instead of a shared secret you may sign with Ed25519, version {_code(scheme.public_key.version)}; we "
            f"then have your public key ({_code(scheme.public_key.key_prefix + '...')})."
        )
    yield f"- Signed is: {_code(scheme.content)}, where"
    for name in dict.fromkeys(_PART.findall(scheme.content)):
        yield f"    - {_code('{' + name + '}')} is {_NAMES[name]};"
    yield "    - everything else stands for itself."
    if scheme.body_hash_query:
        yield (
            f"- A body that is no form is signed by its SHA-256 in hexadecimal, in the query member "
            f"{_code(scheme.body_hash_query)} of the address."
        )
    if scheme.id_borders:
        yield f"- The id must not hold {' or '.join(_code(border) for border in scheme.id_borders)}."


def _signature_words(scheme: KeyedDigest) -> str:
    item = f"{_code(scheme.version + scheme.joiner)} and the digest" if scheme.version else "the digest"
    if scheme.timestamp_key:
        moment = f"{_code(scheme.timestamp_key + scheme.joiner)} and the moment of signing, {_MOMENTS[scheme.moment]}"
        return f"{moment}; then {_code(scheme.separator)}; then {item}"
    if scheme.separator:
        between = "a space" if scheme.separator == " " else _code(scheme.separator)
        return f"{item}; several of them with {between} between are taken as well"
    return item


def _writing(scheme: KeyedDigest) -> str:
    return "hexadecimal" if scheme.encoding is Encoding.HEX else "base64"


def _key_words(form: SecretForm) -> str:
    return {
        SecretForm.TEXT: "the secret's own bytes (UTF-8)",
        SecretForm.BASE64: "what the secret holds in base64, without its `whsec_` if it has one",
        SecretForm.HEX: "what the secret holds in hexadecimal",
    }[form]


def _common_signature_lines(endpoint: Endpoint, scheme: object) -> Iterator[str]:
    yield "Sign the bytes that go out, after everything that might change them, and sign anew for each try."
    if _has_moment(scheme):
        yield (
            f"A moment of signing that is more than {TOLERANCE_SECONDS} seconds away from our clock, either way, is "
            "refused: keep the sender's clock right."
        )
    if endpoint.source.public_url and _signs(scheme, "{url}"):
        yield "The address is signed as it is given above, not as a proxy in between may see it."


def _has_moment(scheme: object) -> bool:
    return any(
        (isinstance(one, KeyedDigest) and bool(one.timestamp_key or one.headers[0].timestamp))
        or (isinstance(one, PublicKeySignature | BodyDigest) and one.moment is not None)
        for one in _simple(scheme)
    )


def _signs(scheme: object, part: str) -> bool:
    return any(isinstance(one, KeyedDigest) and part in one.content for one in _simple(scheme))


def _simple(scheme: object) -> Iterator[object]:
    match scheme:
        case AnyOf():
            for one in scheme.schemes:
                yield from _simple(one)
        case FirstCase():
            for case in scheme.cases:
                yield from _simple(case.scheme)
        case _:
            inner = getattr(scheme, "scheme", None)
            yield from [scheme] if inner is None else _simple(inner)


# ------------------------------------------------------------------------------------------------------------- examples


class _Example:
    """A request that a program of the sender's might make: headers, a body that fits the source, the way to sign."""

    def __init__(self, endpoint: Endpoint, scheme: object, url: str) -> None:
        self.scheme = scheme
        self.url = url
        self.is_form = endpoint.content is Content.FORM
        self.content_type = "application/x-www-form-urlencoded" if self.is_form else "application/json"
        self.document = _document(endpoint)
        names = scheme.headers[0] if isinstance(scheme, KeyedDigest) else Headers("")
        self.names = names
        # A header that carries the event's id, whether it is signed or not.
        self.id_headers = list(
            dict.fromkeys(filter(None, [names.id, *(rule.header for rule in endpoint.identity[:1])]))
        )
        selectors = endpoint.provider.event_name if endpoint.source.event_name is None else endpoint.source.event_name
        first = selectors[0] if selectors else ""
        self.name_header = first.removeprefix("header:") if first.startswith("header:") else ""
        if self.name_header in (names.signature, names.timestamp, *self.id_headers):
            self.name_header = ""


def _document(endpoint: Endpoint) -> dict[str, Any]:
    """A body with something wherever the source looks: name, id and the flow's fields."""
    wanted: dict[str, str] = {}
    selectors = endpoint.provider.event_name if endpoint.source.event_name is None else endpoint.source.event_name
    if selectors and selectors[0].startswith("/"):
        wanted[selectors[0]] = "example.created"
    for rule in endpoint.identity[:1]:
        for number, pointer in enumerate(rule.pointers, start=1):
            wanted.setdefault(pointer, f"example-{number}")
    for name, pointer in endpoint.source.fields.items():
        wanted.setdefault(pointer, f"an example of {name}")
    document: dict[str, Any] = {}
    for pointer, text in wanted.items():
        _put(document, [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]], text)
    return document or {"example": "text"}


def _put(inside: dict[str, Any], tokens: Sequence[str], text: str) -> None:
    """Make the members that lead there; a pointer through what is a text already is left out."""
    for token in tokens[:-1]:
        following = inside.setdefault(token, {})
        if not isinstance(following, dict):
            return
        inside = following
    inside.setdefault(tokens[-1], text)


def _examples(example: _Example) -> Iterator[str]:
    yield f"Both take the secret from the environment variable `{SECRET_VARIABLE}`."
    yield ""
    yield "Python, standard library only. It tries again where that makes sense."
    yield ""
    yield from _fenced("python", _python(example))
    yield ""
    yield "Shell, to see an answer at once; it needs `curl`" + (
        " and `openssl`, which takes the key as an argument: run it where nobody else can list your processes."
        if isinstance(example.scheme, KeyedDigest)
        else " and, for Basic, `openssl`."
        if isinstance(example.scheme, Basic)
        else "."
    )
    yield ""
    yield from _fenced("sh", _shell(example))


def _fenced(language: str, text: str) -> list[str]:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [f"{fence}{language}", text.rstrip("\n"), fence]


def _python(example: _Example) -> str:
    imports, signing = _python_signing(example)
    imports |= {"json"} if not example.is_form else {"urllib.parse"}
    imports |= {"os", "random", "time", "urllib.error", "urllib.request"}
    imports |= {"uuid"} if example.id_headers else set()
    given, same = (", event_id", "the same id") if example.id_headers else ("", "the same body")
    encoded = "urllib.parse.urlencode(event).encode()" if example.is_form else "json.dumps(event).encode()"
    event = json.dumps(example.document, indent=4)
    lines = [
        *(f"import {name}" for name in sorted(imports)),
        "",
        f"URL = {example.url!r}",
        f'SECRET = os.environ["{SECRET_VARIABLE}"]',
        "",
        "",
        f"def signed_headers(body{given}):",
        *(f"    {line}" for line in signing),
        "",
        "",
        f"def deliver(event{given}, tries=6):",
        '    """Gives the answer to an accepted event. Sends it again where that makes sense."""',
        f"    body = {encoded}",
        "    wait = 0",
        "    for attempt in range(tries):",
        "        time.sleep(wait)",
        "        wait = random.uniform(0, 2 ** (attempt + 1))",
        f'        request = urllib.request.Request(URL, body, signed_headers(body{given}), method="POST")',
        "        try:",
        f"            with urllib.request.urlopen(request, timeout={TIMEOUT_SECONDS}) as answer:",
        "                return answer.read().decode()",
        "        except urllib.error.HTTPError as answer:",
        "            if answer.code < 500 and answer.code != 429:",
        '                raise SystemExit(f"refused: {answer.code} {answer.read().decode()}")',
        '            wait = max(wait, float(answer.headers.get("retry-after") or 0))',
        "        except OSError:",
        f"            pass  # no answer: it may have arrived, and {same} makes it one event",
        f'    raise SystemExit("not accepted: keep it, and send it later with {same}")',
        "",
        "",
        f"EVENT = {event}",
        f"print(deliver(EVENT{', uuid.uuid4().hex' if example.id_headers else ''}))",
    ]
    return "\n".join(lines)


def _python_signing(example: _Example) -> tuple[set[str], list[str]]:
    """The modules and the lines of a function that gives a request's headers."""
    scheme = example.scheme
    imports: set[str] = set()
    before: list[str] = []
    headers = [("content-type", repr(example.content_type))]
    headers += [(name, "event_id") for name in example.id_headers]
    headers += [(example.name_header, "'example.created'")] if example.name_header else []
    match scheme:
        case KeyedDigest():
            imports |= {"hashlib", "hmac"}
            if example.names.timestamp:
                imports |= {"datetime"} if scheme.moment is Moment.RFC3339 else {"time"}
                before.append(f"timestamp = {_PYTHON_MOMENTS[scheme.moment]}")
                headers.append((example.names.timestamp, "timestamp"))
            if scheme.secret_form is SecretForm.BASE64 or scheme.encoding is Encoding.BASE64:
                imports.add("base64")
            before.append(f"key = {_PYTHON_KEYS[scheme.secret_form]}")
            before.append(f"content = {_python_content(scheme.content)}")
            digest = f"hmac.new(key, content, hashlib.{scheme.algorithm})"
            written = (
                f"{digest}.hexdigest()"
                if scheme.encoding is Encoding.HEX
                else f"base64.b64encode({digest}.digest()).decode()"
            )
            prefix = scheme.version + scheme.joiner if scheme.version else ""
            headers.append((example.names.signature, f"{prefix!r} + {written}" if prefix else written))
        case SharedSecret():
            headers.append((scheme.header, f"{scheme.prefix!r} + SECRET" if scheme.prefix else "SECRET"))
        case _:
            imports.add("base64")
            headers.append(("authorization", '"Basic " + base64.b64encode(SECRET.encode()).decode()'))
    lines = [*before, "return {", *(f"    {name!r}: {value}," for name, value in headers), "}"]
    return imports, lines


_PYTHON_MOMENTS: Final[Mapping[Moment, str]] = {
    Moment.SECONDS: "str(int(time.time()))",
    Moment.MILLISECONDS: "str(int(time.time() * 1000))",
    Moment.RFC3339: "datetime.datetime.now(datetime.timezone.utc).isoformat()",
}
_PYTHON_KEYS: Final[Mapping[SecretForm, str]] = {
    SecretForm.TEXT: "SECRET.encode()",
    SecretForm.BASE64: 'base64.b64decode(SECRET.removeprefix("whsec_"))',
    SecretForm.HEX: "bytes.fromhex(SECRET)",
}
_PYTHON_PARTS: Final[Mapping[str, str]] = {
    "body": "body",
    "timestamp": "timestamp.encode()",
    "id": "event_id.encode()",
    "url": "URL.encode()",
    "method": 'b"POST"',
}


def _pieces(content: str) -> Iterator[tuple[str, str]]:
    """A template as literals (`"", text`) and parts (`name, ""`), in order."""
    at = 0
    for found in _PART.finditer(content):
        if found.start() > at:
            yield "", content[at : found.start()]
        yield found.group(1), ""
        at = found.end()
    if at < len(content):
        yield "", content[at:]


def _python_content(content: str) -> str:
    return " + ".join(_PYTHON_PARTS[name] if name else f"{literal!r}.encode()" for name, literal in _pieces(content))


def _shell(example: _Example) -> str:
    scheme = example.scheme
    body = urlencode(example.document) if example.is_form else json.dumps(example.document, indent=2)
    lines = [
        "set -eu",
        f': "${{{SECRET_VARIABLE}:?}}"',
        f"url={shlex.quote(example.url)}",
        *(['event_id="example$(date +%s)"'] if example.id_headers else []),
        "body=$(mktemp); trap 'rm -f \"$body\"' EXIT",
        f"printf '%s' {shlex.quote(body)} > \"$body\"",
    ]
    headers = [(name, '"$event_id"') for name in example.id_headers]
    headers += [(example.name_header, "example.created")] if example.name_header else []
    match scheme:
        case KeyedDigest():
            if example.names.timestamp:
                lines.append(f"timestamp={_SHELL_MOMENTS[scheme.moment]}")
                headers.append((example.names.timestamp, '"$timestamp"'))
            written = "openssl base64 -A" if scheme.encoding is Encoding.BASE64 else _SHELL_HEX
            lines += [
                f"key=$({_SHELL_KEYS[scheme.secret_form]})",
                f"signature=$({{ {_shell_content(scheme.content)} }} |",
                f'    openssl dgst -{scheme.algorithm} -mac HMAC -macopt "hexkey:$key" -binary | {written})',
            ]
            prefix = scheme.version + scheme.joiner if scheme.version else ""
            headers.append((example.names.signature, f'{shlex.quote(prefix) if prefix else ""}"$signature"'))
        case SharedSecret():
            prefix = shlex.quote(scheme.prefix) if scheme.prefix else ""
            headers.append((scheme.header, f'{prefix}"${SECRET_VARIABLE}"'))
        case _:
            lines.append(f"credentials=$(printf '%s' \"${SECRET_VARIABLE}\" | openssl base64 -A)")
            headers.append(("authorization", '"Basic $credentials"'))
    # Headers go in by standard input: an argument would show a secret to everybody who lists the processes.
    lines.append("{")
    lines.append(f"    echo 'content-type: {example.content_type}'")
    lines += [f"    printf '%s: %s\\n' {shlex.quote(name)} {value}" for name, value in headers]
    lines.append(f"}} | curl --silent --show-error --include --max-time {TIMEOUT_SECONDS} \\")
    lines.append('    --header @- --data-binary "@$body" "$url"')
    return "\n".join(lines)


_SHELL_HEX: Final = "od -An -v -tx1 | tr -d ' \\n'"
_SHELL_MOMENTS: Final[Mapping[Moment, str]] = {
    Moment.SECONDS: "$(date +%s)",
    Moment.MILLISECONDS: "$(date +%s)000",
    Moment.RFC3339: "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
}
_SHELL_KEYS: Final[Mapping[SecretForm, str]] = {
    SecretForm.TEXT: f"printf '%s' \"${SECRET_VARIABLE}\" | {_SHELL_HEX}",
    SecretForm.BASE64: f"printf '%s' \"${{{SECRET_VARIABLE}#whsec_}}\" | openssl base64 -d -A | {_SHELL_HEX}",
    SecretForm.HEX: f"printf '%s' \"${SECRET_VARIABLE}\" | tr -d ' '",
}
_SHELL_PARTS: Final[Mapping[str, str]] = {
    "body": 'cat "$body";',
    "timestamp": "printf '%s' \"$timestamp\";",
    "id": "printf '%s' \"$event_id\";",
    "url": "printf '%s' \"$url\";",
    "method": "printf 'POST';",
}


def _shell_content(content: str) -> str:
    return " ".join(
        _SHELL_PARTS[name] if name else f"printf '%s' {shlex.quote(literal)};" for name, literal in _pieces(content)
    )


# -------------------------------------------------------------------------------------------------------------- answers

_AGAIN = "Send the same event again: wait as long as `Retry-After` says, else a while that doubles each time."
_WHAT_TO_DO: Final[Mapping[int, str]] = {
    400: "Signed, but the body is not what it says it is. Sending it again is of no use: mend it.",
    401: "Signature, secret, clock or address do not fit, or the source is not in use. We never say which. Do not "
    "repeat it unchanged; `holdfast verify --explain` says what is wrong with a request, offline.",
    413: "The body is too large. Sending it again is of no use.",
    429: "Too fast. " + _AGAIN,
    431: "Too many headers, or too much in them. Sending it again is of no use.",
    500: "Our trouble. " + _AGAIN,
    503: "Our trouble. " + _AGAIN,
}


def _answers(endpoint: Endpoint) -> Iterator[str]:
    accepted = endpoint.provider.acceptance
    if accepted.body is None:
        said = 'JSON with `"event_id"` and `"request_id"`'
    else:
        said = _code(accepted.body).replace("|", "\\|") if accepted.body else "an empty body"
    yield "| status | code | what to do |"
    yield "|---|---|---|"
    yield f"| {accepted.status} | | Stored for good; {said}. Nothing more to do; it need never be sent again. |"
    if endpoint.provider.handshake:
        status = endpoint.provider.handshake.status
        yield f"| {status} | | The sender asked whether we are there, and is answered as it wants. |"
    if endpoint.provider.challenge:
        yield "| 200 | | The sender asked by a GET whether we are there, and is answered as it wants. |"
    for status, code in sorted(_problems()):
        yield f"| {status} | `{code}` | {_WHAT_TO_DO.get(status, _AGAIN if status >= 500 else 'Mend it first.')} |"
    yield f"| none, or any other 5xx | | {_AGAIN} |"
    yield ""
    yield (
        "A refusal is `application/problem+json` (RFC 9457) with these codes and a `request_id`, which also stands in "
        "the header `x-request-id` of every answer: quote it when you ask us."
    )
    yield (
        f"We wait for nothing longer than {ANSWER_SECONDS} s before we answer; the first request after a pause takes "
        f"somewhat longer. Wait {TIMEOUT_SECONDS} s or more before you give up."
    )
    yield "Wait longer from try to try (doubling, with some chance in it), and go on for a day at least."


def _problems() -> set[tuple[int, str]]:
    """Status and code of every refusal, from the table that ingress answers by."""
    refusals = [Refused(rejection) for rejection in Rejection]
    refusals.append(Refused(Rejection.TOO_LARGE, is_about_headers=True))
    answers = [answer_to_refusal(refusal, "") for refusal in refusals]
    return {(answer.status, answer.code) for answer in answers}


# ------------------------------------------------------------------------------------------------------------- identity


def _identity(endpoint: Endpoint) -> Iterator[str]:
    window = endpoint.source.repeat_window_seconds
    by_window = (
        f"Equal events (same name, same body) within {window} seconds are taken for one event sent twice; later they "
        "are two events."
    )
    yield "Whatever is sent more than once is accepted each time and acted on once."
    if not endpoint.identity:
        yield f"Nothing in a delivery identifies its event. {by_window}"
    else:
        yield "The same event is known by:"
        yield ""
        for rule in endpoint.identity:
            yield f"- {_rule_words(endpoint, rule)};"
        yield ""
        if len(endpoint.identity) > 1:
            yield "The first of these that is there counts."
        yield f"A delivery without it: {by_window[0].lower()}{by_window[1:]}"
    yield "There is no promise about order: events may be worked on in another order than they were sent in."


def _rule_words(endpoint: Endpoint, rule: IdentityRule) -> str:
    if rule.header:
        words = f"the header {_code(rule.header)}"
        if not endpoint.verifier.covers_header(rule.header):
            words += (
                ", together with the body (the signature does not cover this header), so repeat the body byte for byte"
            )
    else:
        words = "what the body holds at " + " and ".join(_code(pointer) for pointer in rule.pointers)
    return words + (", together with the rest of the body" if rule.with_body else "")


# --------------------------------------------------------------------------------------------------------------- limits


def _limits(endpoint: Endpoint) -> Iterator[str]:
    yield f"- A body has at most {MAX_BODY_BYTES:,} bytes. The gateway refuses much larger ones in its own words."
    yield f"- At most {MAX_HEADERS} headers, {MAX_HEADER_BYTES:,} bytes of them in all; the gateway itself takes 10 KB."
    throttle = endpoint.source.throttle
    if throttle is not None:
        rate = f"{throttle.rate:g}"
        yield f"- Over {rate} events a second, or {throttle.burst} at once, the answer may be 429."


def _trying(url: str, scheme: object) -> Iterator[str]:
    yield (
        f"`POST {url}/test` checks a request in the same way, has no effect, and says what we made of it"
        + (" (the address that is signed is then this one)." if _signs(scheme, "{url}") else ".")
    )
    yield "`holdfast verify` does so offline, without an account, for requests in a file."


def _rotation(provider_name: str) -> Iterator[str]:
    yield "Several secrets are good at the same time, so a change loses no event:"
    yield ""
    if provider_name in CHOSEN_BY_US:
        yield "1. We add a new secret beside the old one and give it to you. Both are good."
    else:
        yield "1. You have a new secret issued and give it to us; we add it beside the old one. Both are good."
    yield "2. Wait six minutes, so that we know it everywhere; then sign with the new one only, and tell us."
    yield "3. We take the old one away. What it still signs is answered 401."


# ---------------------------------------------------------------------------------------------------------------- words


def _and_then(prefix: str, what: str) -> str:
    return f"{_code(prefix)} and then {what}" if prefix else what


def _code(text: str) -> str:
    """Text as inline code, whatever it holds."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{space}{text}{space}{fence}"
