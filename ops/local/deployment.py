"""The synthesized app, deployed to an emulator: the same template as everywhere, of the stage `local`.

Synthesis is the slow part, so an assembly is kept by the content of what went into it. What the emulator drops from a
template on its way in is set afterwards, from the same template.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ops.stack import DEFAULT_REGION, ROOT, Stack, client

STAGE = "local"
STACK_NAME = f"holdfast-{STAGE}"
ASSET_BUCKET = f"cdk-hnb659fds-assets-000000000000-{DEFAULT_REGION}"
_KEPT_SECONDS = 24 * 3600


class DeploymentFailed(Exception):
    """A command of the deployment ended badly. The text holds the end of what it said."""


def assembly(root: Path = ROOT) -> Path:
    """The cloud assembly of the stage, made anew only when something in it has changed. Raises `DeploymentFailed`."""
    kept = root / ".build" / "assemblies"
    made = kept / f"{STAGE}-{_content(root)}"
    if (made / "manifest.json").exists():
        os.utime(made)
        return made
    kept.mkdir(parents=True, exist_ok=True)
    # Run directly, the app does not read cdk.json as the command line does; its feature flags shape the template.
    context = {**json.loads((root / "cdk.json").read_text())["context"], "stage": STAGE}
    with tempfile.TemporaryDirectory(dir=kept, prefix="making-") as scratch:
        output = Path(scratch, "assembly")
        _run(
            [sys.executable, "app.py"],
            root,
            {**_environment(root), "CDK_OUTDIR": str(output), "CDK_CONTEXT_JSON": json.dumps(context)},
        )
        try:
            output.rename(made)
        except OSError:
            if not (made / "manifest.json").exists():  # somebody else was faster, and made the same
                raise
    _forget_old(kept, made)
    return made


def deploy(assembly_path: Path, endpoint: str, root: Path = ROOT) -> dict[str, str]:
    """Deploy the assembly to the emulator at `endpoint` and give the stack's outputs. Raises `DeploymentFailed`."""
    client("s3", endpoint, DEFAULT_REGION).create_bucket(Bucket=ASSET_BUCKET)
    environment = {
        **_environment(root),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": DEFAULT_REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    with tempfile.TemporaryDirectory(prefix="holdfast-deploy-") as scratch:
        outputs = Path(scratch, "outputs.json")
        command = ["cdk", "deploy", "--app", str(assembly_path), "--require-approval", "never"]
        _run([*command, "--outputs-file", str(outputs), STACK_NAME], Path(scratch), environment)
        found: dict[str, str] = json.loads(outputs.read_text())[STACK_NAME]
    return found


def mend(assembly_path: Path, stack: Stack) -> list[str]:
    """Set what the emulator leaves out or sees otherwise than AWS. Gives what was set, one line each.

    Its CloudFormation drops each table's TTL and each function's reserved concurrency. It authorizes SendMessageBatch
    as an action of its own, while on AWS whoever may SendMessage may send a batch. Raises `DeploymentFailed` if a value
    did not take.
    """
    template = json.loads((assembly_path / f"{STACK_NAME}.template.json").read_text())
    physical = dict(_physical_ids(stack))
    done: list[str] = []
    for logical, resource in template["Resources"].items():
        properties: Mapping[str, Any] = resource.get("Properties", {})
        name = physical.get(logical, "")
        match resource["Type"], properties:
            case "AWS::DynamoDB::Table", {"TimeToLiveSpecification": {"Enabled": True, "AttributeName": attribute}}:
                dynamodb = stack.client("dynamodb")
                dynamodb.update_time_to_live(
                    TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": attribute}
                )
                state = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
                if state.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
                    raise DeploymentFailed(f"TTL of {name} is {state}")
                done.append(f"TTL of {name}: {attribute}")
            case "AWS::Lambda::Function", {"ReservedConcurrentExecutions": int(reserved)}:
                stack.client("lambda").put_function_concurrency(
                    FunctionName=name, ReservedConcurrentExecutions=reserved
                )
                done.append(f"reserved concurrency of {name}: {reserved}")
            case "AWS::IAM::Role", _:
                done += _allow_batches(stack, name)
    return done


def _allow_batches(stack: Stack, role: str) -> list[str]:
    """Let the role send batches wherever it may send."""
    iam = stack.client("iam")
    done = []
    for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        changed = False
        for statement in document["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            if "sqs:SendMessage" in actions and statement["Effect"] == "Allow":
                statement["Action"] = [*actions, "sqs:SendMessageBatch"]
                changed = True
        if changed:
            iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))
            done.append(f"{role} may send batches")
    return done


def _physical_ids(stack: Stack) -> Iterator[tuple[str, str]]:
    pages = stack.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK_NAME)
    for page in pages:
        for resource in page["StackResourceSummaries"]:
            yield resource["LogicalResourceId"], resource.get("PhysicalResourceId", "")


def _content(root: Path) -> str:
    """A digest of everything the assembly is made of, this Python included: the functions run with it."""
    digest = hashlib.sha256(f"{sys.version}\n{os.uname().machine}\n".encode())
    files = [root / name for name in ("app.py", "cdk.json", "pyproject.toml", "requirements/dev.lock")]
    for folder in ("infra", "functions"):
        files += sorted(
            path
            for path in (root / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
        )
    for path in files:
        digest.update(f"{path.relative_to(root)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _environment(root: Path) -> dict[str, str]:
    """What Node, jsii and the CDK command line need, and nothing that could lead them to somebody's account."""
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG", "UV_CACHE_DIR") if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_"))}
    ours = [str(Path(sys.executable).parent), str(root / "node_modules" / ".bin")]
    return {
        **kept,
        "PATH": os.pathsep.join([*ours, os.environ.get("PATH", os.defpath)]),
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
        "CDK_DISABLE_CLI_TELEMETRY": "1",
    }


def _run(command: list[str], cwd: Path, environment: Mapping[str, str]) -> None:
    try:
        ran = subprocess.run(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except FileNotFoundError as exc:
        raise DeploymentFailed(f"{command[0]} is not installed: run `make setup`") from exc
    if ran.returncode:
        said = ran.stdout.decode(errors="replace").strip()[-4000:]
        raise DeploymentFailed(f"{' '.join(command)} ended with {ran.returncode}:\n{said}")


def _forget_old(kept: Path, made: Path) -> None:
    """Remove assemblies that nobody has used for a day."""
    for path in kept.iterdir():
        if path != made and time.time() - path.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
