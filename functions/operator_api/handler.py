"""Answers one call: who may is decided first, then what is asked is read, then it is done (architecture §11).

Every answer carries `x-request-id` and `traceparent`. Whatever is refused is a problem document; storage or audit that
does not answer is 503, and then nothing has happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError, ResponseValidationError
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from functions.core.clock import Clock, Ids
from functions.core.failure import HoldfastError, StorageUnavailable
from functions.observability import Metrics
from functions.operator_api.caller import PUBLIC, Caller, caller_of, is_public, needed_for
from functions.operator_api.problems import CONTENT_TYPE, Code, Refusal, body_of
from functions.operator_api.request import method_and_path, readable

_LONGEST_ROUTE = 120
_MAX_ANSWER_BYTES = 6_000_000
"""As Lambda counts them, who takes 6 MB at most: in the document around it each quotation mark of a body is two."""

Handler = Callable[[dict[str, Any], object], dict[str, Any]]


class UndocumentedAnswer(HoldfastError):
    """A call of ours answers otherwise than it says: a defect."""


def caller(router: APIGatewayHttpRouter) -> Caller:
    """Whose request a route of that router is answering."""
    found: Caller = router.context["caller"]
    return found


def application(routers: Sequence[APIGatewayHttpRouter]) -> APIGatewayHttpResolver:
    """All calls, with the answers to what no call takes. OpenAPI is made of it."""
    # With a code for answers of ours that are not as documented, these are told apart from requests that are not valid.
    app = APIGatewayHttpResolver(enable_validation=True, response_validation_error_http_code=Code.DEFECT.status)
    for router in routers:
        app.include_router(router)

    @app.exception_handler(RequestValidationError)  # type: ignore[untyped-decorator]  # Powertools leaves it untyped
    def invalid(error: RequestValidationError) -> Response[str]:
        problems = [
            {"at": "/".join(str(part) for part in one["loc"]), "problem": str(one["msg"])} for one in error.errors()
        ]
        return _problem(app, Code.INVALID_PAYLOAD, "the request is not valid", problems=problems[:20])

    @app.exception_handler(ResponseValidationError)  # type: ignore[untyped-decorator]  # Powertools leaves it untyped
    def undocumented(error: ResponseValidationError) -> Response[str]:
        raise UndocumentedAnswer(", ".join("/".join(map(str, one["loc"])) for one in error.errors())) from error

    @app.exception_handler(Refusal)  # type: ignore[untyped-decorator]  # Powertools leaves it untyped
    def refused(refusal: Refusal) -> Response[str]:
        _note_trouble(app, refusal.__cause__)
        return _problem(app, refusal.code, refusal.detail, **refusal.more)

    @app.exception_handler(StorageUnavailable)  # type: ignore[untyped-decorator]  # Powertools leaves it untyped
    def unavailable(unavailable: StorageUnavailable) -> Response[str]:
        _note_trouble(app, unavailable)
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
        trouble: list[str] = []
        try:
            _check(event, who)
            asked = readable(event)
            app.append_context(caller=who, trouble=trouble)  # type: ignore[no-untyped-call]  # as above
            answer = app.resolve(asked, context)  # type: ignore[arg-type]  # Lambda's context, as it came
            if _is_too_long(answer):
                raise Refusal(
                    Code.INVALID_PAYLOAD, "the answer is longer than a call can carry: ask for fewer with `limit`"
                )
        except Refusal as refusal:
            answer = _raw(refusal.code, refusal.detail, who)
        except Exception:
            log.exception("a call ended with a defect of ours", extra=_about(who))
            answer = _raw(Code.DEFECT, "an error of ours: it is in the log under the request id", who)
        answer.setdefault("headers", {}).update(
            {"x-request-id": who.request_id, "traceparent": who.traceparent, **_kept(event, int(answer["statusCode"]))}
        )
        status = int(answer["statusCode"])
        if status == Code.UNAUTHORIZED.status:
            answer["headers"]["www-authenticate"] = "Bearer"
        metrics.count("operator_calls", outcome=str(status))
        # The route's key, not the path: it holds no id and no name of anybody.
        asked_for = str(event.get("routeKey", ""))[:_LONGEST_ROUTE]
        duration_ms = clock.now_ms() - began_ms
        said = {**_about(who), "action": asked_for, "status": status, "duration_ms": duration_ms}
        if trouble:
            log.warning("storage or audit did not do its part", extra={**said, "reason": trouble[0]})
        else:
            log.info("answered", extra=said)
        metrics.flush()
        return answer

    return handle


def _is_too_long(answer: Mapping[str, Any]) -> bool:
    """Whether Lambda would refuse it, which the gateway answers with an error that nobody can make anything of."""
    body = answer.get("body") or ""
    return len(body) > _MAX_ANSWER_BYTES // 2 and len(json.dumps(body)) > _MAX_ANSWER_BYTES


def _kept(event: Mapping[str, Any], status: int) -> dict[str, str]:
    """Who may keep the answer, and for how long. What anybody may ask, pages of other origins may read."""
    method, path = method_and_path(event)
    if not is_public(method, path):
        return {"cache-control": "no-store"}
    keep = f"public, max-age={PUBLIC[path]}" if status == HTTPStatus.OK else "no-store"
    return {"cache-control": keep, "access-control-allow-origin": "*"}


def _check(event: Mapping[str, Any], who: Caller) -> None:
    """Before anything else of the request is looked at: raises `Refusal` with 401 or 403."""
    needed = needed_for(*method_and_path(event))
    if needed is None:
        return
    if not who.name:
        raise Refusal(Code.UNAUTHORIZED, "an access token is needed: `holdfast token` prints one")
    if not who.may(needed):
        raise Refusal(Code.PERMISSION_DENIED, f"{needed.words} is needed")


def _note_trouble(app: APIGatewayHttpResolver, cause: BaseException | None) -> None:
    """What storage or audit said, for the log: the caller is told no more than that it was so."""
    if isinstance(cause, StorageUnavailable):
        app.context["trouble"].append(str(cause))


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
