"""A deployed stage, found: the running local stack by its state file, any other by its CloudFormation outputs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ROOT = Path(__file__).resolve().parent.parent
STATE_FILE = ROOT / ".local" / "stack.json"
LOCAL = "local"
DEFAULT_REGION = "us-east-1"
STACK_FILE_VARIABLE = "HOLDFAST_STACK_FILE"
STAGE_VARIABLE = "HOLDFAST_STAGE"


class StackNotFound(Exception):
    """There is no such stack: it was never started or deployed, or it has ended."""


class StackUnreachable(Exception):
    """The stack may be there, but nothing that could tell was reached or would answer."""


@dataclass(frozen=True, slots=True)
class Stack:
    """One deployed stage.

    `outputs` are the stack's CloudFormation outputs by key. `endpoint` is the emulator's address, empty on AWS;
    `simulator_url` is known for a local stack only.
    """

    stage: str
    region: str
    outputs: Mapping[str, str]
    endpoint: str = ""
    simulator_url: str = ""
    state_file: str = ""

    @property
    def is_local(self) -> bool:
        """Whether this is an emulator on this machine, where reading whole tables costs nothing."""
        return bool(self.endpoint)

    @property
    def api_url(self) -> str:
        """Where webhooks are posted, without a trailing slash. Raises `StackNotFound` for a stack without an API."""
        if self.endpoint:
            # The emulator's own host name for an API resolves in browsers only; the path form resolves everywhere.
            return f"{self.endpoint}/_aws/execute-api/{self.output('ApiId')}/$default"
        return self.output("ApiUrl").rstrip("/")

    def output(self, key: str) -> str:
        """One output. Raises `StackNotFound` naming the key if the deployed stack is too old or foreign to have it."""
        try:
            return self.outputs[key]
        except KeyError as exc:
            raise StackNotFound(f"stage {self.stage} has no output {key}: it was deployed from something else") from exc

    def client(self, service: str) -> Any:
        """A boto3 client of the stage. Clients are shared and safe to use from several threads."""
        return client(service, self.endpoint, self.region)


@lru_cache(maxsize=64)
def client(service: str, endpoint: str, region: str) -> Any:
    """A boto3 client: of the emulator at `endpoint`, or of AWS with the caller's own credentials if that is empty."""
    config = Config(
        connect_timeout=5,
        read_timeout=70,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=32,
    )
    if not endpoint:
        return boto3.client(service, region_name=region or None, config=config)  # type: ignore[call-overload]  # the service is a variable
    return boto3.client(  # type: ignore[call-overload]  # as above
        service,
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id="test",  # the emulator's own root key; it guards nothing but this machine's loopback
        aws_secret_access_key="test",  # noqa: S106  # as above
        config=config,
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which stack somebody asks for. Empty texts are filled from the environment, then with what is usual."""

    stage: str = ""
    endpoint: str = ""
    region: str = ""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def find(wanted: Wanted | None = None) -> Stack:
    """The stack that is asked for: the local one unless a stage or an endpoint says otherwise.

    Stage: `--stage`, else HOLDFAST_STAGE, else local. A local stack without an endpoint is the one whose state is in
    HOLDFAST_STACK_FILE, else in `.local/stack.json`. Raises `StackNotFound` or `StackUnreachable`.
    """
    wanted = wanted or Wanted()
    environ = wanted.environ
    stage = wanted.stage or environ.get(STAGE_VARIABLE, "") or LOCAL
    endpoint = (wanted.endpoint or environ.get("AWS_ENDPOINT_URL", "")).rstrip("/")
    region = wanted.region or environ.get("AWS_REGION", "") or environ.get("AWS_DEFAULT_REGION", "")
    if stage == LOCAL:
        path = Path(environ.get(STACK_FILE_VARIABLE) or STATE_FILE)
        stack = from_state(path) if path.exists() else None
        if stack is not None and endpoint in ("", stack.endpoint):
            return stack
        if not endpoint:
            raise StackNotFound(f"no local stack is running (there is no {_shown(path)}): start one with `make up`")
    return from_outputs(stage, endpoint, region or (DEFAULT_REGION if endpoint else ""))


def from_state(path: Path) -> Stack:
    """The local stack that wrote this state file. Raises `StackNotFound` if it is not up."""
    try:
        state = json.loads(path.read_text())
        if state["status"] != "up":
            raise StackNotFound(f"the local stack of {_shown(path)} is not up but {state['status']}: `make up`")
        return Stack(
            stage=state["stage"],
            region=state["region"],
            outputs=dict(state["outputs"]),
            endpoint=state["endpoint"],
            simulator_url=state["simulator_url"],
            state_file=str(path),
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise StackNotFound(f"{_shown(path)} is not the state of a local stack: `make down`, then `make up`") from exc


def from_outputs(stage: str, endpoint: str, region: str) -> Stack:
    """The stage `holdfast-{stage}` as CloudFormation tells of it. Raises `StackNotFound` or `StackUnreachable`."""
    name = f"holdfast-{stage}"
    where = endpoint or f"AWS ({region or 'the default region'})"
    try:
        cloudformation = client("cloudformation", endpoint, region)
        found = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except ClientError as exc:
        if exc.response.get("Error", {}).get("Code") == "ValidationError":  # CloudFormation's word for "not there"
            raise StackNotFound(f"there is no stack {name} at {where}") from exc
        raise StackUnreachable(f"{where} would not tell about {name}: {exc}") from exc
    except (BotoCoreError, ValueError) as exc:  # botocore's word for an endpoint that is no address is ValueError
        raise StackUnreachable(f"{where} could not be asked: {exc}") from exc
    if not found:
        raise StackNotFound(f"there is no stack {name} at {where}")
    outputs = {item["OutputKey"]: item["OutputValue"] for item in found[0].get("Outputs", [])}
    return Stack(stage=stage, region=region or cloudformation.meta.region_name, outputs=outputs, endpoint=endpoint)


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
