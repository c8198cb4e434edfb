"""Why a signed request does not hold: the logic behind `holdfast verify --explain`.

The request is checked again and again by the verifier of ingress, each time with one thing changed that senders get
wrong (see `ops.mistakes`), then with two. What makes it valid is what differs. What cannot be changed back (a header
that never came, a signature cut short) is read off the request (see `ops.shapes`).

No finding holds anything of the secret, of the signature that would be right, or of the body: whoever reads the output
can forge nothing with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from functions.core.clock import Clock, SystemClock
from functions.core.source import MAX_SECRETS
from functions.signatures.providers import PROVIDERS, scheme_of
from functions.signatures.scheme import (
    MAX_SIGNATURES,
    Basic,
    Headers,
    KeyedDigest,
    Moment,
    Reason,
    SharedSecret,
    UnusableScheme,
    UnusableSecret,
)
from functions.signatures.special import BodyDigest, CoveredHeaders, FirstCase, PublicKeySignature
from ops.findings import Code, Finding
from ops.mistakes import MAX_SLOW_BYTES, STYLE, Change, changes_of, signed_with
from ops.shapes import (
    MAX_HEADER_CHARACTERS,
    Simple,
    broken_item,
    difference_of_names,
    header_sets,
    looks_alike,
    moment_shape,
    names_of,
    names_sent,
    odd_moment,
    read_signature,
    scheme_in_force,
    shape_of,
    signed_moment,
)
from ops.verify import MalformedRecord, Request, UnsupportedProvider, read

MAX_CHECKS = 400  # of one record
MAX_CHECKED_BYTES = 256_000_000  # of one record, all checks together: a second or two
MAX_HEADERS = 200  # of a record; more are no request
_SYSTEM = SystemClock()


def explain(record: object, clock: Clock = _SYSTEM) -> list[Finding]:
    """What is wrong with a record, the surest first; nothing for a valid one. Never raises for what is in it."""
    try:
        request = read(record, clock)
    except MalformedRecord as exc:
        fix = 'A record is one line of JSON: {"id", "provider", "secret", "headers", "body", "url", "method", "now"}.'
        return [Finding(Code.MALFORMED_RECORD, f"The record cannot be read: {exc}.", fix)]
    except UnsupportedProvider:
        detail = "There is no provider of that name."
        return [Finding(Code.UNSUPPORTED_PROVIDER, detail, f"Known are {', '.join(PROVIDERS)}.")]
    except UnusableScheme:
        return [
            Finding(
                Code.UNUSABLE_SCHEME,
                "The scheme's options make no scheme; the record's reason says which of them.",
                'Give the source\'s own options, such as "scheme_options": {"header": "x-signature", "prefix": '
                '"sha256="}.',
            )
        ]
    return _Search(request).findings()


class _Search:
    """The checks of one record, which are counted."""

    def __init__(self, request: Request) -> None:
        # Whoever lists a thousand secrets or headers is not explained a thousand times as much.
        delivery = request.delivery
        if len(delivery.headers) > MAX_HEADERS:
            wanted = {name for names in header_sets(request.scheme) for name in names_of(names)} | {"content-type"}
            headers = {name: value for name, value in delivery.headers.items() if name in wanted}
            delivery = replace(delivery, headers=headers)
        self._whole = request
        self._request = replace(request, delivery=delivery, secrets=request.secrets[:MAX_SECRETS])
        per_check = 200 + len(delivery.body) * len(self._request.secrets)
        self._left = min(MAX_CHECKS, 1 + MAX_CHECKED_BYTES // per_check)
        self._made = 0
        self._seen: dict[int, Reason | None] = {}

    def findings(self) -> list[Finding]:
        """The findings, or `nothing_found`; none for a valid request."""
        first = self._check(self._whole)
        if first is None:
            return []
        if first is Reason.TIMESTAMP:
            found = self._skew(self._request)
        elif first is Reason.EMPTY_SECRET:
            found = self._empty_secrets() or self._searched()
        else:
            found = self._searched()
        return list(dict.fromkeys(found)) or self._nothing()

    def _searched(self) -> list[Finding]:
        base, found = self._request, list(self._unusable_secrets())
        usable = tuple(request.secrets[0] for _, request in self._each_secret() if _is_usable(request))
        if found and usable and self._reason(replace(base, secrets=usable)) is None:
            return found
        for repair in (self._headers, self._shape):
            changed, more = repair(base)
            reason = self._reason(changed)
            is_unreadable = self._reason(base) in _UNREADABLE
            if reason is None or reason is Reason.TIMESTAMP:
                return [*found, *more, *(self._skew(changed) if reason else ())]
            if not is_unreadable and not isinstance(_simple(base), PublicKeySignature):
                continue  # a readable header written otherwise explains nothing unless it makes the request valid
            base, found = changed, found + more
            if reason is Reason.MISSING_HEADER:
                return [*found, *self._by_provider(base)]
        made_valid = list(self._one_change(base)) or list(self._two_changes(base))
        if made_valid:
            # A secret in another form is what made it unusable: one finding says so.
            return [one for one in found if one.code is not Code.UNUSABLE_SECRET] + made_valid
        found += self._facts(base)
        is_explained = any(one.code in _UNREPAIRABLE for one in found)
        is_left_open = self._reason(base) is Reason.MISMATCH and not is_explained
        return found + self._nothing(bool(found)) if is_left_open else found

    # ------------------------------------------------------------------------------------------------- checking

    def _check(self, request: Request) -> Reason | None:
        """What ingress says; an unusable secret proves as little as an empty one."""
        self._made += 1
        self._left -= 1
        try:
            return request.check()
        except UnusableSecret:
            return Reason.EMPTY_SECRET

    def _reason(self, request: Request) -> Reason | None:
        """The same, asked once per request; out of checks, nothing holds."""
        delivery = request.delivery
        key = hash(
            (
                delivery.body,
                delivery.url,
                delivery.method,
                frozenset(delivery.headers.items()),
                request.secrets,
                request.scheme,
            )
        )
        if key not in self._seen:
            self._seen[key] = self._check(request) if self._left > 0 else Reason.MISMATCH
        return self._seen[key]

    def _one_change(self, base: Request) -> Iterator[Finding]:
        """Of several changes of one kind the gentlest: a newline taken off says more than a body written anew."""
        mended: set[str] = set()
        for change in sorted(changes_of(base), key=lambda change: change.group == STYLE):
            kind = change.finding.code.partition("_")[0]
            if kind in mended or self._left <= 0:
                continue
            changed = change.apply(base)
            if changed is None:
                continue
            reason = self._reason(changed)
            if reason is None or reason is Reason.TIMESTAMP:
                mended.add(kind)
                yield change.finding
                if reason:
                    yield from self._skew(changed)

    def _two_changes(self, base: Request) -> Iterator[Finding]:
        if len(base.delivery.body) > MAX_SLOW_BYTES:
            return
        likely = [change for change in changes_of(base) if change.is_likely]
        for at, one in enumerate(likely):
            changed = one.apply(base)
            if changed is None:
                continue
            for other in likely[at + 1 :]:
                if self._left <= 0:
                    return
                if (both := _applied(other, changed, one)) is None:
                    continue
                reason = self._reason(both)
                if reason is None or reason is Reason.TIMESTAMP:
                    yield from (one.finding, other.finding)
                    yield from self._skew(both) if reason else ()
                    return

    # -------------------------------------------------------------------------------------------------- secrets

    def _each_secret(self) -> Iterator[tuple[str, Request]]:
        several = len(self._request.secrets) > 1
        for number, secret in enumerate(self._request.secrets, start=1):
            yield f"Secret {number}" if several else "The secret", replace(self._request, secrets=(secret,))

    def _empty_secrets(self) -> list[Finding]:
        found = []
        for name, request in self._each_secret():
            try:
                is_empty = request.check() is Reason.EMPTY_SECRET
            except UnusableSecret:
                is_empty = False
            if is_empty:
                detail = f"{name} is empty, or decodes to nothing."
                fix = "Configure the whole secret: anybody could sign with an empty one, so that none verifies."
                found.append(Finding(Code.EMPTY_SECRET, detail, fix))
        return found

    def _unusable_secrets(self) -> Iterator[Finding]:
        for name, request in self._each_secret():
            try:
                request.scheme.verifier(request.secrets, request.tolerance_seconds)
            except UnusableSecret as exc:
                what = str(exc).removeprefix("secret 1: ").removeprefix("it is ")
                detail = f"{name} cannot be used with this scheme: it is {what}."
                fix = "Copy it once more from where the provider shows it, whole and with nothing around it."
                yield Finding(Code.UNUSABLE_SECRET, detail, fix)

    # -------------------------------------------------------------------------------------------------- headers

    def _headers(self, base: Request) -> tuple[Request, list[Finding]]:
        """The request with its headers under the names that the scheme goes by, and what they came as."""
        if self._reason(base) is not Reason.MISSING_HEADER:
            return base, []
        if uncovered := _uncovered(base):
            return base, [uncovered]
        sets = header_sets(base.scheme)
        if not sets:
            return base, []
        if any(names.are_complete_in(base.delivery.headers) for names in sets):
            return self._version(base)
        candidates = [_renamed(base, names) for names in sets]
        renamed, findings, missing = min(candidates, key=lambda candidate: len(candidate[2]))
        if missing and (mixed := self._mixed(base, sets)) is not None:
            return mixed
        return renamed, [*findings, *_missing(base, renamed, missing, sets)]

    def _version(self, base: Request) -> tuple[Request, list[Finding]]:
        """HubSpot's older signatures count only if a header says which of them it is."""
        name = "x-hubspot-signature-version"
        for version in ("v1", "v2"):
            headers = {**base.delivery.headers, name: version}
            changed = replace(base, delivery=replace(base.delivery, headers=headers))
            if self._reason(changed) is None:
                detail = f"The signature is one of version {version}, and `{name}` does not say so."
                return changed, [Finding(Code.MISSING_HEADER, detail, f"Send `{name}: {version}`.")]
        detail = f"Without a known version in `{name}` the signature beside it means nothing."
        return base, [Finding(Code.MISSING_HEADER, detail, f"Send `{name}` with v1 or v2, or sign with v3.")]

    def _mixed(self, base: Request, sets: list[Headers]) -> tuple[Request, list[Finding]] | None:
        """Two families of headers of which each is incomplete, and one set is complete across them."""
        headers = base.delivery.headers
        gathered: dict[str, str] = {}
        for part in ("id", "timestamp", "signature"):
            wanted = getattr(sets[0], part)
            sent = next((headers[name] for names in sets if headers.get(name := getattr(names, part))), None)
            if wanted and sent is None:
                return None
            if wanted and sent is not None:
                gathered[wanted] = sent
        if len(sets) < 2:
            return None
        families = " and ".join(f"`{names.signature.rpartition('-')[0]}-*`" for names in sets)
        detail = f"The headers are of two families, {families}, and neither is complete."
        fix = f"Send all of one family: {_listed(names_of(sets[0]))}."
        delivery = replace(base.delivery, headers={**headers, **gathered})
        return replace(base, delivery=delivery), [Finding(Code.MIXED_HEADERS, detail, fix)]

    def _by_provider(self, base: Request) -> Iterator[Finding]:
        """The provider that the headers look like, if they are not those of the one that was named."""
        for change in changes_of(base):
            if change.group == "provider" and (changed := change.apply(base)) and self._reason(changed) is None:
                yield change.finding
                return
        for name, row in PROVIDERS.items():
            try:
                scheme = scheme_of(row, {})
            except UnusableScheme:
                continue
            told = [names for names in header_sets(scheme) if names.signature not in _COMMON]
            if scheme != base.scheme and any(names.are_complete_in(base.delivery.headers) for names in told):
                yield Finding(
                    Code.WRONG_PROVIDER,
                    f"The headers look like those of the provider `{name}`; this record says `{base.provider.name}`.",
                    f"Set the provider to `{name}` and check again, or send to the source that expects you.",
                )
                return

    # ---------------------------------------------------------------------------------------------------- shape

    def _shape(self, base: Request) -> tuple[Request, list[Finding]]:
        """The request with its signature and moment written as the scheme has them, and what was odd about them."""
        delivery = base.delivery
        simple = _simple(base)
        if isinstance(simple, BodyDigest):
            return base, [_no_claim(base)]
        if not isinstance(simple, KeyedDigest | PublicKeySignature):
            return base, []  # a shared secret's shape is among the changes
        names = names_sent(simple, delivery)
        found = [*_ids(simple, base)]
        text = delivery.headers.get(names.signature, "")
        if isinstance(simple, KeyedDigest) and simple.separator and text.count(simple.separator) >= MAX_SIGNATURES:
            detail = f"The header holds more than {MAX_SIGNATURES} signatures; so many are not tried."
            return base, [*found, Finding(Code.SIGNATURE_COUNT, detail, "Send one for each secret that is in use.")]
        covering = _covering(base)
        if covering is not None:
            return base, [*found, covering]
        reading = read_signature(simple, text)
        found += reading.findings
        changed = base
        if reading.repaired and reading.repaired != text:
            changed = replace(
                base, delivery=replace(delivery, headers={**delivery.headers, names.signature: reading.repaired})
            )
        if reading.algorithm and (other := signed_with(changed, reading.algorithm)) is not None:
            changed = other
        signed = signed_moment(simple, changed.delivery)
        if signed is not None and (odd := odd_moment(signed)) is not None:
            found.append(odd)
        return changed, [*found, *_twilio(simple, base)]

    def _facts(self, base: Request) -> list[Finding]:
        """What is odd about a request though changing it back does not help."""
        simple = _simple(base)
        found: list[Finding] = []
        if isinstance(simple, PublicKeySignature):
            signed = signed_moment(simple, base.delivery)
            if signed is not None and (odd := odd_moment(signed)) is not None:
                found.append(odd)
        if isinstance(simple, KeyedDigest):
            header = base.delivery.headers.get(names_sent(simple, base.delivery).signature, "")
            if len(header) <= MAX_HEADER_CHARACTERS and (broken := broken_item(simple, header)) is not None:
                found.append(broken)
        if isinstance(simple, SharedSecret | Basic) and self._reason(base) is Reason.MALFORMED:
            detail = f"The header that holds the secret is not {shape_of(simple)}."
            found.append(Finding(Code.CREDENTIALS, detail, f"Write {shape_of(simple)}."))
        if isinstance(simple, KeyedDigest) and "{url}" in simple.content and not base.delivery.url:
            detail = "The signature covers the address, and the record names none."
            fix = "Give the address that the sender was told, with its query, as `url`."
            found.append(Finding(Code.URL_MISSING, detail, fix))
        if self._reason(base) is Reason.BODY_HASH_MISMATCH:
            detail = "The hash of the body that the address carries is not that of this body."
            fix = "The body was changed after the address was made: hash and send the same bytes."
            found.append(Finding(Code.BODY_HASH, detail, fix))
        return found

    # ---------------------------------------------------------------------------------------------------- moment

    def _skew(self, request: Request) -> list[Finding]:
        """The signature holds, its moment does not: by how much, and why that may be."""
        simple = _simple(request)
        signed = signed_moment(simple, request.delivery)
        if signed is None or signed.ms is None:
            return []
        other = Moment.MILLISECONDS if signed.moment is Moment.SECONDS else Moment.SECONDS
        as_other = other.read_ms(signed.text)
        is_other_unit = as_other is not None and as_other in _PLAUSIBLE_MS and signed.ms not in _PLAUSIBLE_MS
        if signed.moment is not Moment.RFC3339 and is_other_unit:
            detail = (
                f"The signature is right, but its moment is given in {moment_shape(other)}; "
                f"{moment_shape(signed.moment)} are expected."
            )
            fix = f"Write {moment_shape(signed.moment)}, and sign that text."
            return [Finding(Code.TIMESTAMP_UNIT, detail, fix)]
        return [_skewed(signed.ms - request.now_ms, request.tolerance_seconds)]

    # --------------------------------------------------------------------------------------------------- nothing

    def _nothing(self, is_part_found: bool = False) -> list[Finding]:
        simple = _simple(self._request)
        tried = list(dict.fromkeys(change.group for change in changes_of(self._request)))
        detail = "That alone does not make it valid. " if is_part_found else ""
        detail += "Neither one mistake nor two of the likeliest explain it. "
        detail += f"In {self._made} checks these were changed: {_listed(tried)}."
        if len(self._request.delivery.body) > MAX_SLOW_BYTES:
            detail += (
                f" With a body of more than {MAX_SLOW_BYTES // 1000} kB not everything is tried: send a smaller one."
            )
        suspects = ["the secret (another endpoint's, another environment's, one that was rotated)"]
        if isinstance(simple, KeyedDigest | PublicKeySignature):
            suspects.append("a body that was changed on its way: compare its length and its hash on both sides")
            if isinstance(simple, KeyedDigest) and "{url}" in simple.content:
                suspects.append("the address: it must be the one the sender was given, to the letter")
            suspects.append(f"the signature itself: it is {shape_of(simple)}")
        if self._request.provider.name == "generic-hmac":
            suspects.append("`scheme_options`: give those of the source, as it has them under `scheme`")
        return [Finding(Code.NOTHING_FOUND, detail, "Look at, in this order: " + "; ".join(suspects) + ".")]


_UNREADABLE = frozenset({Reason.MISSING_HEADER, Reason.MALFORMED, Reason.UNKNOWN_VERSION})
_UNREPAIRABLE = frozenset({Code.SIGNATURE_VERSION, Code.SIGNATURE_LENGTH})  # what was signed cannot be known
_COMMON = frozenset({"authorization", "x-api-key", "x-webhook-token"})  # headers that say nothing about who sent them
_PLAUSIBLE_MS = range(1_000_000_000_000, 4_102_444_800_000)  # 2001 to 2100


def _is_usable(request: Request) -> bool:
    try:
        request.scheme.verifier(request.secrets, request.tolerance_seconds)
    except UnusableSecret:
        return False
    return True


def _simple(request: Request) -> Simple | None:
    return scheme_in_force(request.scheme, request.delivery)


def _applied(change: Change, request: Request, after: Change) -> Request | None:
    return None if change.group == after.group else change.apply(request)


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _renamed(base: Request, names: Headers) -> tuple[Request, list[Finding], list[str]]:
    """With look-alikes under their right names: the request, what came as what, and what is still missing."""
    headers = dict(base.delivery.headers)
    found, missing = [], []
    for wanted in names_of(names):
        if wanted in headers and (headers[wanted] or wanted == names.signature):
            continue
        sent = next((name for name in base.delivery.headers if looks_alike(name, wanted)), None)
        if sent is None or wanted in headers:
            missing.append(wanted)
            continue
        headers[wanted] = headers[sent]
        detail = f"`{wanted}` is missing; a header that resembles it came {difference_of_names(sent, wanted)}."
        fix = f"Send it as `{wanted}` (case does not matter, every other letter does)."
        found.append(Finding(Code.HEADER_NAME, detail, fix))
    return replace(base, delivery=replace(base.delivery, headers=headers)), found, missing


def _missing(base: Request, renamed: Request, missing: list[str], sets: list[Headers]) -> Iterator[Finding]:
    there = [name for names in sets for name in names_of(names) if name in renamed.delivery.headers]
    empty = [name for name in missing if name in base.delivery.headers]
    for name in empty:
        yield Finding(Code.EMPTY_HEADER, f"`{name}` came, but it is empty.", "Send it with its value.")
    absent = [f"`{name}`" for name in missing if name not in empty]
    if not absent:
        return
    complete = " or ".join(_listed([f"`{name}`" for name in names_of(names)]) for names in sets)
    if there:
        came = _listed([f"`{name}`" for name in dict.fromkeys(there)])
        detail = f"{_listed(absent)} did not come; {came} did."
        yield Finding(Code.INCOMPLETE_HEADERS, detail, f"Send a complete set: {complete}.")
        return
    detail = f"{_listed(absent)} did not come."
    if "`x-hub-signature-256`" in absent and "x-hub-signature" in base.delivery.headers:
        detail += " Only the older `x-hub-signature` (SHA-1) did, which this provider no longer goes by."
    fix = f"Send {complete}. A proxy may drop what it does not know; a secret may not be configured in the sender."
    yield Finding(Code.MISSING_HEADER, detail, fix)


def _uncovered(base: Request) -> Finding | None:
    """hook0: a header that `h` names and that did not come."""
    if not _is_covering(base):
        return None
    for item in base.delivery.headers.get("x-hook0-signature", "").split(",")[:MAX_SIGNATURES]:
        if not item.strip().startswith("h="):
            continue
        for number, name in enumerate(item.strip()[2:].split(" ")[:MAX_SIGNATURES], start=1):
            if name.lower() not in base.delivery.headers:
                detail = f"Header {number} of those that `h` names did not come; its value is part of what is signed."
                fix = "Send every header that you sign, or name only those that you send. A proxy may have dropped it."
                return Finding(Code.MISSING_HEADER, detail, fix)
    return None


def _is_covering(base: Request) -> bool:
    cases = base.scheme.cases if isinstance(base.scheme, FirstCase) else ()
    in_force = next((case.scheme for case in cases if case.applies(base.delivery)), None)
    return isinstance(in_force, CoveredHeaders)


def _covering(base: Request) -> Finding | None:
    """hook0: `h` missing, twice there, or not a list."""
    if not _is_covering(base):
        return None
    items = [item.strip() for item in base.delivery.headers.get("x-hook0-signature", "").split(",")]
    lists = [item[2:].split(" ") for item in items if item.startswith("h=")]
    if len(lists) == 1 and all(lists[0]) and len(lists[0]) <= MAX_SIGNATURES:
        return None
    detail = "A signature of version v1 needs one item `h=` that names the headers it covers, each after one space."
    return Finding(Code.COVERED_HEADERS, detail, "Write `t=<seconds>,h=<name> <name>,v1=<64 hexadecimal digits>`.")


def _ids(simple: KeyedDigest | PublicKeySignature, base: Request) -> Iterator[Finding]:
    if not isinstance(simple, KeyedDigest):
        return
    headers = base.delivery.headers
    names = names_sent(simple, base.delivery)
    ids = [other.id for other in simple.headers if other.id in headers]
    if names.id and len({headers[name] for name in ids}) > 1:
        detail = f"{_listed([f'`{name}`' for name in ids])} name two different ids; only one can be signed."
        yield Finding(Code.AMBIGUOUS_ID, detail, "Send one of them, or the same id in both.")
    if any(border in headers.get(names.id, "") for border in simple.id_borders):
        detail = f"The id in `{names.id}` holds a sign that parts it from the rest of what is signed."
        yield Finding(Code.ID_SEPARATOR, detail, "Choose ids without the signs that `scheme.content` puts beside {id}.")


def _no_claim(base: Request) -> Finding:
    where = {
        "adyen": "one item under /notificationItems, with /additionalData/hmacSignature in it",
        "mailgun": "/signature with timestamp, token and signature (64 hexadecimal digits)",
    }.get(base.provider.name, "what the scheme reads")
    return Finding(
        Code.SIGNATURE_SHAPE,
        f"This provider signs inside the body, and the body is no JSON that holds {where}.",
        "Send the provider's own document, unchanged.",
    )


def _twilio(simple: KeyedDigest | PublicKeySignature, base: Request) -> Iterator[Finding]:
    if not isinstance(simple, KeyedDigest) or "{form}" not in simple.content:
        return
    if base.delivery.body and not base.delivery.is_form and f"{simple.body_hash_query}=" not in base.delivery.url:
        detail = "The body is not declared to be a form, and the address carries no hash of it: nothing signs it."
        fix = "Send `Content-Type: application/x-www-form-urlencoded`"
        fix += f", or put `{simple.body_hash_query}` into the address." if simple.body_hash_query else "."
        yield Finding(Code.CONTENT_TYPE, detail, fix)
    elif base.delivery.is_form and re.match(rb"\s*[\[{]", base.delivery.body[:64]):
        detail = "The Content-Type says that the body is a form; it looks like JSON."
        yield Finding(Code.CONTENT_TYPE, detail, "Send the Content-Type that the body has.")


def _skewed(skew_ms: int, tolerance_seconds: int) -> Finding:
    seconds = abs(skew_ms) // 1000
    direction = "in the future" if skew_ms > 0 else "in the past"
    said = f"The signature is right, but its moment lies {_duration(seconds)} {direction}"
    said += f"; {tolerance_seconds} s are tolerated."
    hours, off = divmod(seconds + 120, 3600)
    if 1 <= hours <= 14 and off <= 240:
        return Finding(
            Code.TIMESTAMP_ZONE,
            f"{said} That is {hours} whole hour{'s' if hours > 1 else ''}: a local time taken for UTC.",
            "Take the moment from a clock in UTC (seconds since 1970 have no time zone).",
        )
    if skew_ms > 0:
        return Finding(Code.TIMESTAMP_FUTURE, said, "Set the sender's clock (NTP); sign when you send, not ahead.")
    fix = (
        "Sign each attempt anew, when it is sent; a queue or a retry of the sender's may have held it. Set its clock "
        "(NTP). For a request that was recorded earlier, give the moment it arrived as `now`."
    )
    return Finding(Code.TIMESTAMP_OLD, said, fix)


def _duration(seconds: int) -> str:
    if seconds < 600:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 172_800:
        return f"{seconds // 3600} h {seconds // 60 % 60} min"
    return f"{seconds // 86_400} days"
