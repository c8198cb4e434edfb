"""The `aws` command of the runbooks, as far as they use it, for stages on which there is none: service, operation,
options by the service's own model, `--query`, `file://`.

What the model does not know is a mistake of the page, and fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jmespath  # type: ignore[import-untyped]  # it has no types
from botocore import xform_name

from ops.stack import find

SERVICES = {"s3api": "s3"}
"""What the command calls otherwise than the SDK."""


class NotUnderstood(Exception):
    """There is no such service, operation or option."""


def run(words: Sequence[str], client_of: Callable[[str], Any]) -> str:
    """What `aws WORDS` prints. Raises `NotUnderstood`, and what the call raises."""
    service, operation, *rest = words
    client = client_of(SERVICES.get(service, service))
    methods = {xform_name(name, "-"): (method, name) for method, name in client.meta.method_to_api_mapping.items()}
    if operation not in methods:
        raise NotUnderstood(f"{service} has no operation {operation}")
    method, name = methods[operation]
    members = client.meta.service_model.operation_model(name).input_shape.members
    options, files = _options(rest)
    query = options.pop("query", [""])[0]
    options.pop("output", None)
    by_option = {xform_name(member, "-"): (member, shape) for member, shape in members.items()}
    unknown = sorted(options.keys() - by_option.keys())
    if unknown:
        raise NotUnderstood(f"{service} {operation} has no option {', '.join(unknown)}")
    request = {by_option[option][0]: _value(by_option[option][1], values) for option, values in options.items()}
    answer = getattr(client, method)(**request)
    answer.pop("ResponseMetadata", None)
    told = ""
    if files:  # of `lambda invoke`, where what the function says goes
        told = answer.pop("Payload").read().decode()
    if answer.get("FunctionError"):
        raise NotUnderstood(f"the function failed: {told}")
    shown = jmespath.search(query, answer) if query else answer
    return told + json.dumps(shown, indent=2, default=str)


def _options(words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Options with what follows each; and what stands by itself."""
    options: dict[str, list[str]] = {}
    alone: list[str] = []
    current: list[str] | None = None
    for word in words:
        if word.startswith("--"):
            current = options.setdefault(word.removeprefix("--"), [])
        elif word.startswith("/dev/"):
            alone.append(word)
        elif current is None:
            raise NotUnderstood(f"what is {word!r}?")
        else:
            current.append(word)
    return options, alone


def _value(shape: Any, values: list[str]) -> Any:
    match shape.type_name:
        case "list":
            return [_value(shape.member, [value]) for value in values]
        case "structure" | "map":
            return json.loads(_text(values))
        case "integer" | "long":
            return int(_text(values))
        case "boolean":
            return not values or values == ["true"]
        case _:
            return _text(values)


def _text(values: list[str]) -> str:
    (value,) = values
    return Path(value.removeprefix("file://")).read_text() if value.startswith("file://") else value


if __name__ == "__main__":
    print(run(sys.argv[1:], find().client))
