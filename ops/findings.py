"""What is wrong with a signed request, in words for the developer who sent it.

Findings name headers that a scheme knows, moments and counts. What the request itself holds (its secret, its signature,
its body, its address) never gets into one: a text is made here, or it is a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """What a script can rely on. A code keeps its meaning; new ones may come."""

    MALFORMED_RECORD = "malformed_record"
    UNSUPPORTED_PROVIDER = "unsupported_provider"
    UNUSABLE_SCHEME = "unusable_scheme"
    WRONG_PROVIDER = "wrong_provider"

    MISSING_HEADER = "missing_header"
    INCOMPLETE_HEADERS = "incomplete_headers"
    EMPTY_HEADER = "empty_header"
    HEADER_NAME = "header_name"
    MIXED_HEADERS = "mixed_headers"
    AMBIGUOUS_ID = "ambiguous_id"
    ID_SEPARATOR = "id_separator"

    SIGNATURE_SHAPE = "signature_shape"
    SIGNATURE_WRAPPED = "signature_wrapped"
    SIGNATURE_PREFIX = "signature_prefix"
    SIGNATURE_SEPARATOR = "signature_separator"
    SIGNATURE_VERSION = "signature_version"
    SIGNATURE_ENCODING = "signature_encoding"
    SIGNATURE_ALPHABET = "signature_alphabet"
    SIGNATURE_PADDING = "signature_padding"
    SIGNATURE_LENGTH = "signature_length"
    SIGNATURE_COUNT = "signature_count"
    SIGNATURE_STRONGER = "signature_stronger"
    COVERED_HEADERS = "covered_headers"
    WRONG_ALGORITHM = "wrong_algorithm"
    WRONG_CONTENT = "wrong_content"
    PLAIN_HASH = "plain_hash"

    TIMESTAMP_FORMAT = "timestamp_format"
    TIMESTAMP_UNIT = "timestamp_unit"
    TIMESTAMP_OLD = "timestamp_old"
    TIMESTAMP_FUTURE = "timestamp_future"
    TIMESTAMP_ZONE = "timestamp_zone"
    TIMESTAMP_SPELLING = "timestamp_spelling"

    EMPTY_SECRET = "empty_secret"  # noqa: S105  # a code, no password, as all below
    UNUSABLE_SECRET = "unusable_secret"  # noqa: S105
    SECRET_WRAPPED = "secret_wrapped"  # noqa: S105
    SECRET_PREFIX = "secret_prefix"  # noqa: S105
    SECRET_FORM = "secret_form"  # noqa: S105
    SECRET_ALPHABET = "secret_alphabet"  # noqa: S105
    CREDENTIALS = "credentials"

    BODY_JSON = "body_json"
    BODY_LINES = "body_lines"
    BODY_END = "body_end"
    BODY_BOM = "body_bom"
    BODY_CHARSET = "body_charset"
    BODY_ENCODED = "body_encoded"
    BODY_FORM = "body_form"
    BODY_EMPTY = "body_empty"
    BODY_HASH = "body_hash"
    CONTENT_TYPE = "content_type"

    URL_MISSING = "url_missing"
    URL_SCHEME = "url_scheme"
    URL_PORT = "url_port"
    URL_HOST = "url_host"
    URL_PATH = "url_path"
    URL_SLASH = "url_slash"
    URL_QUERY = "url_query"
    URL_ESCAPES = "url_escapes"
    WRONG_METHOD = "wrong_method"

    NOTHING_FOUND = "nothing_found"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: what, and what to change."""

    code: Code
    detail: str
    fix: str

    def to_json(self) -> dict[str, str]:
        """`{"code", "detail", "fix"}`."""
        return {"code": self.code.value, "detail": self.detail, "fix": self.fix}
