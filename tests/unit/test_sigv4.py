"""Requests are signed as AWS signs them: its published examples, and the SDK's own signer on anything at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.adapters.sigv4 import Credentials, Query, Signer, query_of
from functions.core.failure import StorageUnavailable
from tests.sdk_signing import sdk_signature

# Access key and secret of the examples in AWS's documentation and in its Signature Version 4 test suite.
SUITE = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SUITE_MS = 1_440_938_160_000  # 20150830T123600Z
S3_GUIDE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
S3_GUIDE_MS = 1_369_353_600_000  # 20130524T000000Z

HOST = {"host": "example.amazonaws.com"}


def signature_of(signed: Mapping[str, str]) -> str:
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=\S+, SignedHeaders=\S+, Signature=(\S+)", signed["authorization"]
    )
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "signature"),
    [
        pytest.param(
            *("GET", "/", (), HOST, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            id="get-vanilla",
        ),
        pytest.param(
            *("POST", "/", (), HOST, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            id="post-vanilla",
        ),
        pytest.param(
            *("GET", "/", (("Param2", "value2"), ("Param1", "value1")), HOST, b""),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            id="get-vanilla-query-order-key-case",
        ),
        pytest.param(
            *("GET", "/", (), {**HOST, "my-header1": " value1", "my-header2": ' "a   b   c"'}, b""),
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            id="get-header-value-trim",
        ),
        pytest.param(
            *("GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", (), HOST, b""),
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
            id="get-unreserved",
        ),
        pytest.param(
            *("GET", "/ሴ", (), HOST, b"", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
            id="get-utf8",
        ),
        pytest.param(
            *("GET", "/", (("ሴ", "bar"),), HOST, b""),
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
            id="get-vanilla-utf8-query",
        ),
        pytest.param(
            *("POST", "/", (), {**HOST, "content-type": "application/x-www-form-urlencoded"}, b"Param1=value1"),
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            id="post-x-www-form-urlencoded",
        ),
    ],
)
def test_a_request_of_the_published_test_suite_gets_its_published_signature(
    method: str, path: str, query: Query, headers: dict[str, str], body: bytes, signature: str
) -> None:
    signed = Signer("service", "us-east-1").signed(SUITE, method, path, headers, body, SUITE_MS, query)
    assert signature_of(signed) == signature


def test_an_object_of_the_s3_guide_gets_its_published_signature() -> None:
    """S3 API Reference, "Authenticating Requests: Using the Authorization Header", example "PUT Object"."""
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "date": "Fri, 24 May 2013 00:00:00 GMT",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
    }
    signer = Signer("s3", "us-east-1")
    signed = signer.signed(S3_GUIDE, "PUT", "/test%24file.text", headers, b"Welcome to Amazon S3.", S3_GUIDE_MS)
    assert signature_of(signed) == "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    assert signed["x-amz-content-sha256"] == "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"


segments = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: set(text) != {"."} and "/" not in text
)
paths = st.lists(segments, max_size=4).map(lambda parts: "/" + quote("/".join(parts), safe="/"))
header_texts = st.text(st.sampled_from("ab Z09-_=/+,;:\t\"'"), max_size=20)
headers_besides = st.dictionaries(
    st.sampled_from(["content-type", "x-amz-target", "x-amz-meta-a", "range"]), header_texts, max_size=4
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
queries = st.lists(st.tuples(texts, texts), max_size=4)


@given(
    service=st.sampled_from(["s3", "sqs", "ssm", "dynamodb"]),
    region=st.sampled_from(["us-east-1", "cn-north-1"]),
    path=paths,
    query=queries,
    headers=headers_besides,
    body=st.binary(max_size=40),
    now_ms=st.integers(0, 4_102_444_800_000),
    token=st.sampled_from(["", "token/+=="]),
)
def test_the_sdk_makes_the_same_signature_of_any_request(
    service: str,
    region: str,
    path: str,
    query: list[tuple[str, str]],
    headers: dict[str, str],
    body: bytes,
    now_ms: int,
    token: str,
) -> None:
    credentials = Credentials("AKID", "a secret/+", token)
    named = {"host": "a.example.com:4566", **headers}
    signed = Signer(service, region).signed(credentials, "PUT", path, named, body, now_ms, query)
    expected = sdk_signature(
        service,
        region,
        credentials.secret_key,
        method="PUT",
        url=f"http://a.example.com:4566{path}?{query_of(query)}",
        headers={name: value for name, value in signed.items() if name != "authorization"},
        body=body,
    )
    assert signature_of(signed) == expected
    assert signed.get("x-amz-security-token", "") == token


@pytest.mark.parametrize("service", ["s3", "sqs"])
def test_a_path_that_is_encoded_already_is_signed_as_it_stands_at_s3_and_encoded_once_more_elsewhere(
    service: str,
) -> None:
    signed = Signer(service, "us-east-1").signed(SUITE, "PUT", "/a%20b", HOST, b"", SUITE_MS)
    assert signature_of(signed) == sdk_signature(
        service,
        "us-east-1",
        SUITE.secret_key,
        method="PUT",
        url=f"http://{HOST['host']}/a%20b",
        headers={name: value for name, value in signed.items() if name != "authorization"},
        body=b"",
    )


def test_a_key_is_kept_for_a_day_and_made_anew_for_another_day_or_secret() -> None:
    signer = Signer("sqs", "us-east-1")
    signer.signed(SUITE, "POST", "/", HOST, b"", SUITE_MS)
    key = signer._key
    signer.signed(SUITE, "POST", "/", HOST, b"", SUITE_MS + 1000)
    assert signer._key is key
    rotated = Credentials("AKIDEXAMPLE", "another")
    for credentials, now_ms in ((rotated, SUITE_MS), (SUITE, SUITE_MS + 86_400_000), (SUITE, SUITE_MS)):
        fresh = Signer("sqs", "us-east-1").signed(credentials, "POST", "/", HOST, b"", now_ms)
        assert signer.signed(credentials, "POST", "/", HOST, b"", now_ms) == fresh


def test_credentials_are_what_lambda_sets() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}
    assert Credentials.from_env(environ) == Credentials("a", "b", "c")
    del environ["AWS_SESSION_TOKEN"]
    assert Credentials.from_env(environ) == Credentials("a", "b", "")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"AWS_ACCESS_KEY_ID": "a"},
        {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": ""},
        {"AWS_ACCESS_KEY_ID": "a\r\nx: y", "AWS_SECRET_ACCESS_KEY": "hidden"},
        {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_SESSION_TOKEN": "hidden\n"},
        {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_SESSION_TOKEN": "hidden ä"},
    ],
    ids=["none", "no secret", "empty secret", "two headers", "an end of line", "not ASCII"],
)
def test_credentials_that_cannot_sign_are_trouble_that_names_none_of_them(environ: dict[str, str]) -> None:
    with pytest.raises(StorageUnavailable, match="AWS credentials") as caught:
        Credentials.from_env(environ)
    assert "hidden" not in str(caught.value)


def test_no_secret_is_in_what_credentials_say_of_themselves() -> None:
    said = repr(Credentials("AKID", "hidden", "hidden too"))
    assert "AKID" in said
    assert "hidden" not in said
