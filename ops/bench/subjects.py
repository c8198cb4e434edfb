"""What is compared: ingress and its peer, each unpacked from its bundle and given an environment like Lambda's."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functions.ingress.settings import IngressSettings
from infra.bundle import Bundler
from infra.config import Platform
from ops.bench.endpoint import Endpoint
from ops.senders import make_secret, sign, source_entry, ticket_event

OURS, PEER = "ours", "peer"
NAMES = (OURS, PEER)
SOURCE = "desk"
REGION = "us-east-1"
DISTINCT_EVENTS = 32
_PROVIDER = "generic-hmac"
_SENT_AT = 1_790_000_000  # the scheme signs no moment, so any will do
_PEER_REQUIREMENTS = ("aws-lambda-powertools", "pydantic")
_TEXT = "My parcel was due on Monday and the tracking page has not moved since. Where is it, and when will it be here? "
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Subject:
    """One of the two. `path` is what its process imports from, after the standard library's own folders."""

    name: str
    module: str
    function: str
    bundle_bytes: int
    path: tuple[Path, ...]
    environment: Mapping[str, str]


def parameters() -> dict[str, str]:
    """What the parameter store holds for either: a source's entry for ours, the secret alone for the peer."""
    secret = make_secret(_PROVIDER, "bench")
    entry = source_entry(_PROVIDER, [secret], tenant="acme")
    return {f"{_sources_path(OURS)}/{SOURCE}": json.dumps(entry), f"{_sources_path(PEER)}/{SOURCE}": secret}


def subjects(scratch: Path, endpoint: Endpoint, *, build: Path | None = None) -> dict[str, Subject]:
    """Both, unpacked under `scratch` and pointed at the endpoint, by name. Raises `infra.bundle.BundleFailed`.

    boto3 is the locked one, beside the bundles and compiled, as in Lambda's runtime; whoever imports it has it there.
    """
    bundler = Bundler(Platform.HOST, build=build)
    runtime = bundler.packages(bundler.locked("the runtime", ["boto3"], besides=()))
    peer = bundler.bundle_of("peer", {"peer.py": _HERE / "peer.py"}, bundler.locked("the peer", _PEER_REQUIREMENTS))
    found = {}
    for name, bundle, module, function in (
        (OURS, bundler.bundle("ingress"), "functions.ingress.main", "handler"),
        (PEER, peer, "peer", "lambda_handler"),
    ):
        task = scratch / name
        with zipfile.ZipFile(bundle) as archive:
            archive.extractall(task)
        trust = _trust(name, task, runtime, endpoint)
        found[name] = Subject(
            name, module, function, bundle.stat().st_size, (task, runtime), _environment(name, task, endpoint) | trust
        )
    return found


def gateway_events(count: int) -> list[dict[str, Any]]:
    """So many different events as the HTTP API hands them over (payload format 2.0), signed for both subjects alike.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """
    return [_gateway_event(number) for number in range(count)]


def _gateway_event(number: int) -> dict[str, Any]:
    sample = ticket_event(
        _PROVIDER, f"t-{number % 7}", _TEXT * 5, "ada@example.com", f"m-{number}", now=_SENT_AT, subject="Parcel"
    )
    path = f"/webhooks/{SOURCE}"
    signed = sign(
        _PROVIDER,
        make_secret(_PROVIDER, "bench"),
        sample.body,
        url=f"https://bench.example.com{path}",
        now=_SENT_AT,
        message_id=sample.message_id,
    )
    return {
        "version": "2.0",
        "routeKey": "POST /webhooks/{source}",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {
            **signed.headers,
            "accept": "*/*",
            "accept-encoding": "gzip",
            "content-length": str(len(signed.body)),
            "host": "bench.example.com",
            "user-agent": "helpdesk-webhooks/1.0",
            "x-amzn-trace-id": "Root=1-67891234-abcdef0123456789abcdef01",
            "x-forwarded-for": "192.0.2.7",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        },
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "bench",
            "domainName": "bench.example.com",
            "domainPrefix": "bench",
            "http": {
                "method": "POST",
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.7",
                "userAgent": "helpdesk-webhooks/1.0",
            },
            "requestId": f"Bench{number:08d}=",
            "routeKey": "POST /webhooks/{source}",
            "stage": "$default",
            "time": "22/Sep/2026:00:00:00 +0000",
            "timeEpoch": _SENT_AT * 1000,
        },
        "pathParameters": {"source": SOURCE},
        "body": signed.body.decode(),
        "isBase64Encoded": False,
    }


def _sources_path(name: str) -> str:
    return f"/bench/{name}/sources"


def _trust(name: str, task: Path, runtime: Path, endpoint: Endpoint) -> dict[str, str]:
    """Let the subject trust the endpoint beside those whom it trusts in production, so that it reads as much as there:
    Amazon's own authorities are in our bundle, and botocore brings the whole world's. Gives what its environment needs.
    """
    if endpoint.certificate is None:
        return {}
    certificate = endpoint.certificate.read_bytes()
    if name == OURS:
        with (task / "functions" / "adapters" / "amazon_roots.pem").open("ab") as roots:
            roots.write(certificate)
        return {}
    store = task / "trusted.pem"
    store.write_bytes((runtime / "botocore" / "cacert.pem").read_bytes() + b"\n" + certificate)
    return {"AWS_CA_BUNDLE": str(store)}


def _environment(name: str, task: Path, endpoint: Endpoint) -> dict[str, str]:
    """As Lambda sets it (https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html), and the settings.

    The access key is the subject's name: that is how the endpoint tells callers apart.
    """
    settings = IngressSettings(
        stage="bench",
        events_queue_url=f"{endpoint.url}/000000000000/{name}",
        sources_path=_sources_path(name),
        bucket="bench",
        ledger_table="bench",
        recovery_table="bench",
    )
    return {
        **settings.to_env(),
        "AWS_ACCESS_KEY_ID": name,
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_SESSION_TOKEN": "bench",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info[0]}.{sys.version_info[1]}",
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "LAMBDA_TASK_ROOT": str(task),
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PATH": os.defpath,
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "POWERTOOLS_SERVICE_NAME": "ingress",
        "POWERTOOLS_METRICS_NAMESPACE": "Bench",
    }
