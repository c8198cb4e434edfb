"""Answers one call: who may is decided first, then what is asked is read, then it is done (architecture §11).

Every answer carries `x-request-id` and `traceparent`. Whatever is refused is a problem document; storage or audit that
does not answer is 503, and then nothing has happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from functions.core.clock import Clock, Ids
from functions.core.failure import StorageUnavailable
from functions.observability import Metrics
from functions.operator_api.caller import Caller, caller_of, needed_for
from functions.operator_api.problems import CONTENT_TYPE, Code, Refusal, body_of

Handler = Callable[[dict[str, Any], object], dict[str, Any]]


def caller(router: APIGatewayHttpRouter) -> Caller:
    """Whose request a route of that router is answering."""
    found: Caller = router.context["caller"]
    return found


def application(routers: Sequence[APIGatewayHttpRouter]) -> APIGatewayHttpResolver:
    """All calls, with the answers to what no call takes. OpenAPI is made of it."""
    app = APIGatewayHttpResolver(enable_validation=True)
    for router in routers:
        app.include_router(router)

    @app.exception_handler(RequestValidationError)  # type: ignore[untyped-decorator]  # Powertools leaves it untyped
    def invalid(error: RequestValidationError) -> Response[str]:
        problems = [
            {"at": "/".join(str(part) for part in one["loc"]), "problem": str(one["msg"])} for one in error.errors()
        ]
        return _problem(app, Code.INVALID_PAYLOAD, "the request is not valid", problems=problems[:20])

    @app.exception_handler(Refusal)  # type: ignore[untyped-decorator]  # Powertools leaves it untyped
    def refused(refusal: Refusal) -> Response[str]:
        return _problem(app, refusal.code, refusal.detail, **refusal.more)

    @app.exception_handler(StorageUnavailable)  # type: ignore[untyped-decorator]  # Powertools leaves it untyped
    def unavailable(_: StorageUnavailable) -> Response[str]:
        return _problem(app, Code.UNAVAILABLE, "storage or audit does not answer: nothing was changed; call again")

    @app.not_found
    def unknown(_: Exception) -> Response[str]:
        return _problem(app, Code.NOT_FOUND, "there is no such call")

    return app


def build(app: APIGatewayHttpResolver, *, clock: Clock, ids: Ids, log: Logger, metrics: Metrics) -> Handler:
    """The handler of one request of the HTTP API. Raises nothing: a defect of ours is a problem document, and an error
    in the log.
    """

    def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
        began_ms = clock.now_ms()
        who = caller_of(event, ids.new_id())
        answer = _refused_at_once(event, who)
        if answer is None:
            app.append_context(caller=who)  # type: ignore[no-untyped-call]  # as above
            try:
                answer = app.resolve(_decoded(event), context)  # type: ignore[arg-type]  # Lambda's context, as it came
            except Exception:
                log.exception("a call ended with a defect of ours", extra=_about(who))
                answer = _raw(Code.DEFECT, "an error of ours: it is in the log under the request id", who)
        answer.setdefault("headers", {}).update({"x-request-id": who.request_id, "traceparent": who.traceparent})
        status = int(answer["statusCode"])
        metrics.count("operator_calls", outcome=str(status))
        log.info("answered", extra={**_about(who), "status": status, "duration_ms": clock.now_ms() - began_ms})
        metrics.flush()
        return answer

    return handle


def _refused_at_once(event: dict[str, Any], who: Caller) -> dict[str, Any] | None:
    """Before anything of the request is looked at: 401 and 403."""
    http = (event.get("requestContext") or {}).get("http") or {}
    needed = needed_for(str(http.get("method", "")), str(event.get("rawPath", "")))
    if needed is None:
        return None
    if not who.name:
        return _raw(Code.UNAUTHORIZED, "a bearer token is needed: `holdfast token` prints one", who)
    if not who.may(needed):
        return _raw(Code.PERMISSION_DENIED, f"{needed.words} is needed", who)
    return None


def _decoded(event: dict[str, Any]) -> dict[str, Any]:
    """The event with its path as it is meant. Parameters are told apart by slashes, so an encoded one stays encoded."""
    path = str(event.get("rawPath", ""))
    return {**event, "rawPath": "/".join(unquote(part).replace("/", "%2F") for part in path.split("/"))}


def _problem(app: APIGatewayHttpResolver, code: Code, detail: str, **more: Any) -> Response[str]:
    who: Caller = app.context["caller"]
    return Response(code.status, CONTENT_TYPE, json.dumps(body_of(code, detail, who.request_id, **more)))


def _raw(code: Code, detail: str, who: Caller) -> dict[str, Any]:
    return {
        "statusCode": code.status,
        "headers": {"Content-Type": CONTENT_TYPE},
        "body": json.dumps(body_of(code, detail, who.request_id)),
        "isBase64Encoded": False,
    }


def _about(who: Caller) -> dict[str, str]:
    return {"request_id": who.request_id, "traceparent": who.traceparent, "actor": who.name}
