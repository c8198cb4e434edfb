"""The `aws` of the runbooks' test understands what AWS does, and nothing else."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from tests.aws_command import NotUnderstood, run


def asked(words: list[str], answer: dict[str, Any], expected: dict[str, Any], operation: str) -> str:
    service = words[0].removesuffix("api") if words[0] == "s3api" else words[0]
    client = boto3.client(service, region_name="us-east-1")  # type: ignore[call-overload]  # the service is a variable
    with Stubber(client) as stub:
        stub.add_response(operation, answer, expected)
        return run(words, lambda _: client)


def test_options_are_those_of_the_service(tmp_path: Path) -> None:
    told = asked(
        [
            "sqs",
            "receive-message",
            "--queue-url",
            "u",
            "--visibility-timeout",
            "30",
            "--message-attribute-names",
            "All",
        ],
        {"Messages": [{"Body": "x"}]},
        {"QueueUrl": "u", "VisibilityTimeout": 30, "MessageAttributeNames": ["All"]},
        "receive_message",
    )
    assert json.loads(told) == {"Messages": [{"Body": "x"}]}
    told = asked(
        ["s3api", "list-objects-v2", "--bucket", "b", "--max-keys", "3", "--query", "Contents[].Key"],
        {"Contents": [{"Key": "spill/1"}]},
        {"Bucket": "b", "MaxKeys": 3},
        "list_objects_v2",
    )
    assert json.loads(told) == ["spill/1"]
    (tmp_path / "value").write_text("secret")
    asked(
        ["ssm", "put-parameter", "--name", "/x/y", "--value", f"file://{tmp_path}/value", "--overwrite"],
        {"Version": 1},
        {"Name": "/x/y", "Value": "secret", "Overwrite": True},
        "put_parameter",
    )


def test_what_a_function_says_comes_first_and_its_failure_is_one() -> None:
    words = ["lambda", "invoke", "--function-name", "f", "/dev/stdout"]
    answer = {"StatusCode": 200, "Payload": io.BytesIO(b"null")}
    assert asked(words, answer, {"FunctionName": "f"}, "invoke").startswith("null{")
    answer = {"StatusCode": 200, "FunctionError": "Unhandled", "Payload": io.BytesIO(b'"no"')}
    with pytest.raises(NotUnderstood, match="no"):
        asked(words, answer, {"FunctionName": "f"}, "invoke")


@pytest.mark.parametrize(
    "words",
    [
        ["sqs", "recieve-message"],
        ["sqs", "receive-message", "--queue", "u"],
        ["sqs", "receive-message", "u"],
    ],
)
def test_what_aws_would_not_understand_fails(words: list[str]) -> None:
    with pytest.raises(NotUnderstood):
        run(words, lambda service: boto3.client(service, region_name="us-east-1"))  # type: ignore[call-overload]  # as above
