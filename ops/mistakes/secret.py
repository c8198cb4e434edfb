"""How the secret is read: its encoding, its prefix, the white space around it; and how a public key is."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from urllib.parse import unquote

from functions.core.source import MAX_SECRETS
from functions.signatures.scheme import Basic, KeyedDigest, Scheme, SecretForm
from functions.signatures.special import BodyDigest, PublicKeySignature
from ops.findings import Code, Finding
from ops.mistakes.change import Change
from ops.shapes import Simple, lenient_base64, rebuilt, simple_schemes
from ops.verify import Request


def secrets(request: Request, simple: Simple | None) -> Iterator[Change]:
    """The secret was used in another form than the provider says."""
    several = len(request.secrets) > 1
    for at in range(min(len(request.secrets), MAX_SECRETS)):
        name = f"Secret {at + 1}" if several else "The secret"
        if isinstance(simple, PublicKeySignature):
            yield from _public_keys(at, name)
            continue
        for code, said, fix, read, is_likely in _SECRET_TEXTS:
            yield Change(
                "secret", Finding(code, f"{name} {said}.", fix), partial(_with_secret, at=at, read=read), is_likely
            )
        if isinstance(simple, KeyedDigest | BodyDigest):
            yield from _secret_forms(at, name, simple.secret_form)
        if isinstance(simple, Basic):
            for said, fix, read in _BASIC_SECRETS:
                finding = Finding(Code.SECRET_FORM, f"{name} {said}.", fix)
                yield Change("secret", finding, partial(_with_secret, at=at, read=read))


_SECRET_TEXTS: tuple[tuple[Code, str, str, Callable[[str], str], bool], ...] = (
    (
        Code.SECRET_WRAPPED,
        "is right without the white space around it (often the newline of a file or of `echo`)",
        "Strip the secret where it is read: `printf %s` instead of `echo`, `.strip()` after reading a file.",
        str.strip,
        True,
    ),
    (
        Code.SECRET_WRAPPED,
        "is right without the quotes around it",
        "Take the quotes off: they belong to the file or the shell command that the secret came from.",
        lambda text: text.strip().strip("\"'`").strip(),
        True,
    ),
    (
        Code.SECRET_WRAPPED,
        "was used with a newline at its end",
        "Strip the secret in the sender: it was read from a file or from `echo` with its newline.",
        lambda text: text + "\n",
        True,
    ),
    (
        Code.SECRET_WRAPPED,
        "is right without the name before it, as in a line `NAME=value`",
        "Configure what stands behind the `=` alone.",
        lambda text: re.sub(r"\A(?:export\s+)?[A-Z][A-Z0-9_]{2,60}\s*=\s*", "", text.strip()).strip("\"'"),
        False,
    ),
    (
        Code.SECRET_FORM,
        "is right once it is percent-decoded",
        "Configure the secret as it is, not as it stood in an address.",
        unquote,
        False,
    ),
)


def _with_secret(request: Request, at: int, read: Callable[[str], str]) -> Request | None:
    if at >= len(request.secrets):
        return None
    secret = read(request.secrets[at])
    if not secret or secret == request.secrets[at]:
        return None
    return replace(request, secrets=(*request.secrets[:at], secret, *request.secrets[at + 1 :]))


def _secret_forms(at: int, name: str, form: SecretForm) -> Iterator[Change]:
    """The same secret, another key: what the scheme decodes taken as it stands, and the reverse."""

    def change(code: Code, said: str, fix: str, read: Callable[[str], str | None], is_likely: bool = True) -> Change:
        def apply(request: Request) -> Request | None:
            if at >= len(request.secrets):
                return None
            key = read(request.secrets[at])
            return None if not key else _with_key(request, at, key, form)

        return Change("secret", Finding(code, f"{name} {said}.", fix), apply, is_likely)

    if form is SecretForm.TEXT:
        verbatim = "This scheme takes the secret as it stands, with any prefix and undecoded: do so when you sign."
        yield change(Code.SECRET_PREFIX, "was used without its prefix `whsec_`", verbatim, _without_prefix)
        yield change(Code.SECRET_FORM, "was decoded from base64 before it was used as the key", verbatim, _base64_hex)
        yield change(
            Code.SECRET_FORM,
            "was decoded from hexadecimal before it was used as the key",
            verbatim,
            lambda text: text if _is_hex(text) else None,
        )
    else:
        written = "base64" if form is SecretForm.BASE64 else "hexadecimal"
        decode = f"This scheme's key is what the secret decodes to from {written}: decode it before you sign."
        yield change(Code.SECRET_FORM, f"was used as it stands instead of decoded from {written}", decode, _hex_of)
        yield change(
            Code.SECRET_FORM,
            "was used undecoded and without its prefix `whsec_`",
            "Take off `whsec_` and decode the rest from base64: the bytes are the key.",
            lambda text: _hex_of(text.removeprefix("whsec_")) if text.startswith("whsec_") else None,
        )
        yield change(
            Code.SECRET_PREFIX,
            "carries another prefix than `whsec_`, which is not part of the key",
            "Take off everything up to the first underscore, then decode the rest from base64.",
            lambda text: None if text.startswith("whsec_") else lenient_base64(text.partition("_")[2]).hex(),
        )
        yield change(
            Code.SECRET_ALPHABET,
            "is written in the URL-safe alphabet of base64, with - and _ for + and /",
            "Configure it in the standard alphabet, as the provider shows it.",
            lambda text: _base64_hex(text) if re.search(r"[-_]", text.removeprefix("whsec_")) else None,
        )
        if form is SecretForm.BASE64:
            yield change(
                Code.SECRET_FORM,
                "is hexadecimal, where base64 is expected",
                "Write the key's bytes in base64.",
                lambda text: text.removeprefix("whsec_") if _is_hex(text.removeprefix("whsec_")) else None,
            )
        else:
            yield change(
                Code.SECRET_FORM,
                "is base64, where hexadecimal is expected",
                "Write the key's bytes in hexadecimal.",
                _base64_hex,
            )


def _with_key(request: Request, at: int, key_hex: str, form: SecretForm) -> Request | None:
    """The request whose secret at a place is this key; the other secrets are left out, being written otherwise."""
    del form
    if key_hex.lower() == request.secrets[at].lower() and all(
        isinstance(one, KeyedDigest | BodyDigest) and one.secret_form is SecretForm.HEX
        for one in simple_schemes(request.scheme)
    ):
        return None

    def in_hex(simple: Simple) -> Scheme:
        return replace(simple, secret_form=SecretForm.HEX) if isinstance(simple, KeyedDigest | BodyDigest) else simple

    return replace(request, scheme=rebuilt(request.scheme, in_hex), secrets=(key_hex,))


def _hex_of(text: str) -> str:
    return text.encode().hex()


def _without_prefix(text: str) -> str | None:
    return _hex_of(text.removeprefix("whsec_")) if text.startswith("whsec_") else None


def _base64_hex(text: str) -> str | None:
    return lenient_base64(text.strip().removeprefix("whsec_")).hex() or None


def _is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and re.match(r"[0-9A-Fa-f]+\Z", text) is not None


def _public_keys(at: int, name: str) -> Iterator[Change]:
    for said, fix, read in _PUBLIC_KEYS:
        finding = Finding(Code.SECRET_FORM, f"{name} {said}.", fix)
        yield Change("secret", finding, partial(_with_secret, at=at, read=read), is_likely=True)


_PEM = re.compile(r"-----[A-Z ]{1,40}-----")
_PUBLIC_KEYS: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    (
        "is in PEM, with its BEGIN and END lines or its line breaks",
        "Give what stands between those lines, as one line.",
        lambda text: "".join(_PEM.sub("", text).split()),
    ),
    ("has white space or quotes around it", "Take them off.", lambda text: text.strip().strip("\"'`").strip()),
    (
        "is base64, where hexadecimal is expected",
        "Write the key's 32 bytes in hexadecimal.",
        lambda text: lenient_base64(text)[-32:].hex(),
    ),
    (
        "is hexadecimal, where base64 is expected",
        "Write the key's DER in base64.",
        lambda text: base64.b64encode(bytes.fromhex(text)).decode() if _is_hex(text) else text,
    ),
    (
        "is written in the URL-safe alphabet of base64",
        "Write it in the standard alphabet.",
        lambda text: base64.b64encode(lenient_base64(text)).decode(),
    ),
    ("has 0x before it", "Leave that out.", lambda text: text.removeprefix("0x")),
)


def _from_address(text: str) -> str:
    user_info, at, _ = text.partition("://")[2].rpartition("@")
    return unquote(user_info) if at else text


_BASIC_SECRETS: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    (
        "is the base64 of user:password",
        "Configure `user:password` in clear; base64 is for the header.",
        lambda text: lenient_base64(text.partition(" ")[2] or text).decode("utf-8", "replace"),
    ),
    (
        "is a whole address with the credentials in it",
        "Configure `user:password` alone.",
        _from_address,
    ),
    (
        "has a space after its colon",
        "Configure `user:password` without it.",
        lambda text: re.sub(r"\s*:\s*", ":", text, count=1),
    ),
)
