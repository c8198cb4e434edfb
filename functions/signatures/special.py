"""The schemes that one row of data cannot say: public keys, signatures inside the body, and choices between schemes."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from functions.core.pointer import resolve, text_at
from functions.signatures.scheme import (
    MAX_SIGNATURES,
    NO_CRYPTOGRAPHY,
    TOLERANCE_SECONDS,
    Delivery,
    Encoding,
    Findings,
    Headers,
    KeyedDigest,
    Moment,
    Reason,
    Scheme,
    SecretForm,
    UnusableSecret,
    Verifier,
    bytes_of_base64,
    ed25519,
)

IsSignature = Callable[[bytes, bytes], bool]


# ------------------------------------------------------------------------------------------- several schemes at once


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A delivery signed in several ways at once, of which one is enough: a sender with two keys, one of them new."""

    schemes: tuple[Scheme, ...]

    def verifier(self, secrets: Sequence[str], tolerance_seconds: int = TOLERANCE_SECONDS) -> Verifier:
        """Every secret with every scheme. Raises `UnusableSecret`."""
        return _AnyVerifier(tuple(scheme.verifier(secrets, tolerance_seconds) for scheme in self.schemes))


# Of several refusals the one that says most: how far the delivery got.
_TELLING = (Reason.TIMESTAMP, Reason.MISMATCH, Reason.EMPTY_SECRET, Reason.MALFORMED, Reason.UNKNOWN_VERSION)


@dataclass(frozen=True, slots=True)
class _AnyVerifier:
    verifiers: tuple[Verifier, ...]

    def covers_header(self, name: str) -> bool:
        return all(verifier.covers_header(name) for verifier in self.verifiers)

    def check(self, delivery: Delivery, now_ms: int) -> Reason | None:
        reasons = [verifier.check(delivery, now_ms) for verifier in self.verifiers]
        if None in reasons:
            return None
        return next((reason for reason in _TELLING if reason in reasons), reasons[0])

    def findings(self, delivery: Delivery) -> Findings:
        found = [verifier.findings(delivery) for verifier in self.verifiers]
        return min(found, key=lambda each: (len(each.missing), len(each.malformed)))


@dataclass(frozen=True, slots=True)
class Case:
    """A scheme and how to see that a delivery claims to be signed by it."""

    applies: Callable[[Delivery], bool]
    scheme: Scheme


@dataclass(frozen=True, slots=True)
class FirstCase:
    """The first scheme that applies decides alone: what a delivery offers beside it never rescues it.

    `otherwise` is the reason for a delivery to which none applies.
    """

    cases: tuple[Case, ...]
    otherwise: Reason = Reason.MISSING_HEADER

    def verifier(self, secrets: Sequence[str], tolerance_seconds: int = TOLERANCE_SECONDS) -> Verifier:
        """Every secret must do for every scheme. Raises `UnusableSecret`."""
        return _CaseVerifier(
            tuple((case.applies, case.scheme.verifier(secrets, tolerance_seconds)) for case in self.cases),
            self.otherwise,
        )


@dataclass(frozen=True, slots=True)
class _CaseVerifier:
    cases: tuple[tuple[Callable[[Delivery], bool], Verifier], ...]
    otherwise: Reason

    def covers_header(self, name: str) -> bool:
        return all(verifier.covers_header(name) for _, verifier in self.cases)

    def check(self, delivery: Delivery, now_ms: int) -> Reason | None:
        for applies, verifier in self.cases:
            if applies(delivery):
                return verifier.check(delivery, now_ms)
        return self.otherwise

    def findings(self, delivery: Delivery) -> Findings:
        first = self.cases[0][1]
        return next((verifier for applies, verifier in self.cases if applies(delivery)), first).findings(delivery)


@dataclass(frozen=True, slots=True)
class Unsolicited:
    """For a sender whose challenges have us sign a text of anybody's choice with the key that signs its deliveries.

    A body of the shape of such a text is no delivery: our own answer to a stranger would be its signature.
    """

    scheme: Scheme
    solicited: re.Pattern[str]

    def verifier(self, secrets: Sequence[str], tolerance_seconds: int = TOLERANCE_SECONDS) -> Verifier:
        """Raises `UnusableSecret`."""
        return _UnsolicitedVerifier(self.scheme.verifier(secrets, tolerance_seconds), self.solicited)


@dataclass(frozen=True, slots=True)
class _UnsolicitedVerifier:
    verifier: Verifier
    solicited: re.Pattern[str]

    def covers_header(self, name: str) -> bool:
        return self.verifier.covers_header(name)

    def check(self, delivery: Delivery, now_ms: int) -> Reason | None:
        reason = self.verifier.check(delivery, now_ms)
        if reason is None and self.solicited.match(delivery.body.decode("latin-1")):
            return Reason.MALFORMED
        return reason

    def findings(self, delivery: Delivery) -> Findings:
        return self.verifier.findings(delivery)


# --------------------------------------------------------------------------------------------------------- public keys


def ed25519_key(text: str) -> IsSignature:
    """A verifier of Ed25519 signatures; the key is 32 bytes in hexadecimal. Raises `UnusableSecret`."""
    return ed25519(text, Encoding.HEX)


def p256_key(text: str) -> IsSignature:
    """A verifier of ECDSA P-256 signatures over SHA-256; the key is DER (SPKI) in base64. Raises `UnusableSecret`."""
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415  # as above
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  # as above
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  # as above
        from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415  # as above
    except ImportError as exc:
        raise UnusableSecret(NO_CRYPTOGRAPHY) from exc
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, UnsupportedAlgorithm) as exc:
        raise UnusableSecret("it is not a public key: DER in base64") from exc
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UnusableSecret("it is not a key of the curve P-256")
    algorithm = ec.ECDSA(SHA256())

    def is_signature(signature: bytes, content: bytes) -> bool:
        try:
            key.verify(signature, content, algorithm)
        except InvalidSignature:
            return False
        return True

    return is_signature


@dataclass(frozen=True, slots=True)
class PublicKeySignature:
    """A signature over `{timestamp}{body}` that a public key checks.

    `moment` None: the sender promises nothing about its timestamp, so that it is signed content and no more.
    """

    headers: Headers
    encoding: Encoding
    key: Callable[[str], IsSignature]
    moment: Moment | None = Moment.SECONDS

    def verifier(self, secrets: Sequence[str], tolerance_seconds: int = TOLERANCE_SECONDS) -> Verifier:
        """The secrets are public keys. Raises `UnusableSecret` naming the key's place in the list."""
        keys = []
        for number, secret in enumerate(secrets, start=1):
            try:
                keys.append(self.key(secret))
            except UnusableSecret as exc:
                raise UnusableSecret(f"secret {number}: {exc}") from exc
        return _PublicKeyVerifier(self, tuple(keys), tolerance_seconds * 1000)


@dataclass(frozen=True, slots=True)
class _PublicKeyVerifier:
    scheme: PublicKeySignature
    keys: tuple[IsSignature, ...] = field(repr=False)
    tolerance_ms: int

    def covers_header(self, name: str) -> bool:
        return name == self.scheme.headers.timestamp

    def check(self, delivery: Delivery, now_ms: int) -> Reason | None:
        scheme = self.scheme
        if not scheme.headers.are_complete_in(delivery.headers):
            return Reason.MISSING_HEADER
        signature = _decoded(scheme.encoding, delivery.headers[scheme.headers.signature].strip())
        if not signature:
            return Reason.MALFORMED
        timestamp = delivery.headers[scheme.headers.timestamp].strip()
        signed_at_ms = scheme.moment.read_ms(timestamp) if scheme.moment else None
        if scheme.moment and signed_at_ms is None:
            return Reason.MALFORMED
        content = timestamp.encode("utf-8", "surrogatepass") + delivery.body
        if not any(is_signature(signature, content) for is_signature in self.keys):
            return Reason.MISMATCH
        if signed_at_ms is not None and abs(now_ms - signed_at_ms) > self.tolerance_ms:
            return Reason.TIMESTAMP
        return None

    def findings(self, delivery: Delivery) -> Findings:
        scheme, names = self.scheme, self.scheme.headers
        missing = names.missing_in(delivery.headers)
        if missing:
            return Findings(missing)
        malformed = []
        if not _decoded(scheme.encoding, delivery.headers[names.signature].strip()):
            malformed.append(names.signature)
        signed_at_ms = None
        if scheme.moment:
            signed_at_ms = scheme.moment.read_ms(delivery.headers[names.timestamp].strip())
            if signed_at_ms is None:
                malformed.append(names.timestamp)
        return Findings(malformed=tuple(malformed), signed_at_ms=signed_at_ms)


def _decoded(encoding: Encoding, text: str) -> bytes:
    """The bytes of a signature; none for text that is not in this writing, in the one form that senders use."""
    if encoding is Encoding.BASE64:
        return bytes_of_base64(text)
    if not _SMALL_HEX.match(text):
        return b""
    return bytes.fromhex(text)


_SMALL_HEX = re.compile(r"(?:[0-9a-f]{2})+\Z")


# ------------------------------------------------------------------------------------------ signatures inside the body


@dataclass(frozen=True, slots=True)
class Claim:
    """What a body says about itself: the content it says was signed, and the signature. `moment` as it was written."""

    content: bytes
    signature: str
    moment: str = ""


@dataclass(frozen=True, slots=True)
class BodyDigest:
    """HMAC-SHA256 over some members of a JSON body, found in that body. Whatever else the body holds is not covered.

    `claim` reads it; None for a document that makes no such claim.
    """

    claim: Callable[[object], Claim | None]
    encoding: Encoding
    secret_form: SecretForm = SecretForm.TEXT
    moment: Moment | None = None

    def verifier(self, secrets: Sequence[str], tolerance_seconds: int = TOLERANCE_SECONDS) -> Verifier:
        """Raises `UnusableSecret` naming the secret's place in the list."""
        keys = []
        for number, secret in enumerate(secrets, start=1):
            try:
                keys.append(self.secret_form.key(secret))
            except UnusableSecret as exc:
                raise UnusableSecret(f"secret {number}: {exc}") from exc
        return _BodyDigestVerifier(self, tuple(keys), tolerance_seconds * 1000)


_SHA256_BYTES = 32
_MAX_EXPLAINED_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class _BodyDigestVerifier:
    scheme: BodyDigest
    keys: tuple[bytes, ...] = field(repr=False)
    tolerance_ms: int

    def covers_header(self, name: str) -> bool:  # noqa: ARG002  # no header is
        return False

    def check(self, delivery: Delivery, now_ms: int) -> Reason | None:
        scheme = self.scheme
        if not all(self.keys):
            return Reason.EMPTY_SECRET
        try:
            claim = scheme.claim(json.loads(delivery.body))
        except (ValueError, RecursionError):
            return Reason.MALFORMED
        if claim is None or not scheme.encoding.is_shape_of(claim.signature, _SHA256_BYTES):
            return Reason.MALFORMED
        signed_at_ms = scheme.moment.read_ms(claim.moment) if scheme.moment else None
        if scheme.moment and signed_at_ms is None:
            return Reason.MALFORMED
        presented = claim.signature.lower() if scheme.encoding is Encoding.HEX else claim.signature
        is_authentic = False
        for key in self.keys:
            expected = scheme.encoding.write(hmac.digest(key, claim.content, "sha256"))
            is_authentic |= hmac.compare_digest(expected, presented.encode())
        if not is_authentic:
            return Reason.MISMATCH
        if signed_at_ms is not None and abs(now_ms - signed_at_ms) > self.tolerance_ms:
            return Reason.TIMESTAMP
        return None

    def findings(self, delivery: Delivery) -> Findings:
        """Of the moment only: it goes by no header. Of a large body nothing: it has been read once already, for
        somebody who may have proved nothing.
        """
        if len(delivery.body) > _MAX_EXPLAINED_BYTES:
            return Findings()
        try:
            claim = self.scheme.claim(json.loads(delivery.body))
        except (ValueError, RecursionError):
            claim = None
        if claim is None or self.scheme.moment is None:
            return Findings()
        return Findings(signed_at_ms=self.scheme.moment.read_ms(claim.moment))


def adyen_claim(document: object) -> Claim | None:
    """https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures

    A JSON notification holds exactly one item. Of several, all but the first would be taken on trust. What is signed
    as text is read as the identity reads it, so that one signature never fits two identities.
    """
    items = resolve(document, "/notificationItems")
    if not isinstance(items, list) or len(items) != 1:
        return None
    item = resolve(items, "/0/NotificationRequestItem")
    parts = [
        text_at(item, pointer)
        for pointer in (
            "/pspReference",
            "/originalReference",
            "/merchantAccountCode",
            "/merchantReference",
            "/amount/value",
            "/amount/currency",
            "/eventCode",
            "/success",
        )
    ]
    if any(":" in part for part in (*parts[:3], *parts[4:])):
        return None  # only the merchant's own reference may hold the separator: so there is one way to part the content
    content = ":".join(parts).encode("utf-8", "surrogatepass")
    return Claim(content, text_at(item, "/additionalData/hmacSignature"))


def mailgun_claim(document: object) -> Claim | None:
    """https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks

    Only the moment and a token that is used once are signed; the rest of the body is not.
    """
    timestamp, token = text_at(document, "/signature/timestamp"), text_at(document, "/signature/token")
    if not timestamp or not token:
        return None
    return Claim(
        (timestamp + token).encode("utf-8", "surrogatepass"), text_at(document, "/signature/signature"), timestamp
    )


# --------------------------------------------------------------------------------------------------------------- hook0

_HOOK0_HEADER = "x-hook0-signature"
_HOOK0_COVERED = ":covered"  # no HTTP header can have this name
_HOOK0_BODY = KeyedDigest(
    headers=(Headers(_HOOK0_HEADER),),
    encoding=Encoding.HEX,
    content="{timestamp}.{body}",
    version="v0",
    separator=",",
    timestamp_key="t",
    is_spaced=True,
)


@dataclass(frozen=True, slots=True)
class CoveredHeaders:
    """Hook0's newer scheme: `h` names the headers that are signed too, with their values, in that order."""

    def verifier(self, secrets: Sequence[str], tolerance_seconds: int = TOLERANCE_SECONDS) -> Verifier:
        """Any text is a secret."""
        digest = replace(
            _HOOK0_BODY,
            headers=(Headers(_HOOK0_HEADER, id=_HOOK0_COVERED),),
            content="{timestamp}.{id}.{body}",
            version="v1",
        )
        return _CoveredHeadersVerifier(digest.verifier(secrets, tolerance_seconds))


@dataclass(frozen=True, slots=True)
class _CoveredHeadersVerifier:
    digest: Verifier

    def covers_header(self, name: str) -> bool:  # noqa: ARG002  # each delivery names its own
        return False

    def check(self, delivery: Delivery, now_ms: int) -> Reason | None:
        covering = self._covering(delivery)
        return covering if isinstance(covering, Reason) else self.digest.check(covering, now_ms)

    def findings(self, delivery: Delivery) -> Findings:
        """The names of covered headers are the sender's words, and stay unsaid."""
        if _HOOK0_HEADER not in delivery.headers:
            return Findings((_HOOK0_HEADER,))
        covering = self._covering(delivery)
        return Findings(malformed=(_HOOK0_HEADER,)) if isinstance(covering, Reason) else self.digest.findings(covering)

    @staticmethod
    def _covering(delivery: Delivery) -> Delivery | Reason:
        """The delivery with what its signature covers beside the body, or why that cannot be said."""
        lists = [value for key, value in _hook0_items(delivery) if key == "h"]
        if len(lists) != 1:
            return Reason.MALFORMED
        names = lists[0].split(" ")
        if len(names) > MAX_SIGNATURES or not all(names):
            return Reason.MALFORMED
        values = [delivery.headers.get(name.lower()) for name in names]
        # A header that is signed and did not come: an empty value in its place could be a header somebody took out.
        if None in values:
            return Reason.MISSING_HEADER
        covered = ".".join([lists[0], *(value for value in values if value is not None)])
        return replace(delivery, headers={**delivery.headers, _HOOK0_COVERED: covered})


def _hook0_items(delivery: Delivery) -> list[tuple[str, str]]:
    items = delivery.headers.get(_HOOK0_HEADER, "").split(",", MAX_SIGNATURES)
    return [(key, value) for key, _, value in (item.strip().partition("=") for item in items)]


# https://documentation.hook0.com/tutorials/webhook-authentication
HOOK0 = FirstCase(
    (
        Case(lambda delivery: any(key == "v1" for key, _ in _hook0_items(delivery)), CoveredHeaders()),
        Case(lambda delivery: _HOOK0_HEADER in delivery.headers, _HOOK0_BODY),
    )
)


# ------------------------------------------------------------------------------------------------------------- hubspot

# The hash of the older versions can be continued by strangers, but only with bytes that no JSON holds.
# https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation
_HUBSPOT_V1 = KeyedDigest(
    headers=(Headers("x-hubspot-signature"),), encoding=Encoding.HEX, content="{body}", is_plain_hash=True
)
_HUBSPOT_V2 = replace(_HUBSPOT_V1, content="{method}{url}{body}")
_HUBSPOT_V3 = KeyedDigest(
    headers=(Headers("x-hubspot-signature-v3", "x-hubspot-request-timestamp"),),
    encoding=Encoding.BASE64,
    content="{method}{url}{body}{timestamp}",
    moment=Moment.MILLISECONDS,
    tries_decoded=True,
)
HUBSPOT_VERSIONS: Mapping[str, Scheme] = {"v1": _HUBSPOT_V1, "v2": _HUBSPOT_V2, "v3": _HUBSPOT_V3}


def _says(version: str) -> Callable[[Delivery], bool]:
    return lambda delivery: delivery.headers.get("x-hubspot-signature-version", "").strip().lower() == version


# The newest signature that is there counts. One with a moment cannot be told from one that somebody took it off, so
# a source that knows its version should say so (`scheme.version`).
HUBSPOT = FirstCase(
    (
        Case(lambda delivery: "x-hubspot-signature-v3" in delivery.headers, _HUBSPOT_V3),
        Case(_says("v2"), _HUBSPOT_V2),
        Case(_says("v1"), _HUBSPOT_V1),
    )
)
