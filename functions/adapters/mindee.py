"""The OCR `Provider` over Mindee's API v2: `ocr.parse` puts a document into the queue of a model.

| kind | repeat | call |
|---|---|---|
| `ocr.parse` | idempotent | `POST /products/extraction/enqueue` with the file in base64; answers 202 and a job |

`target` is the document's name; its bytes come from our own bucket, so no URL of it is given to anybody. The effect's
id is the job's. Mindee posts the result to the webhooks named in the parameter, or shows it at `/jobs/{id}`.

Mindee documents no idempotency key: a document that is sent twice is read, and paid, twice. Nobody but us sees that,
and the result carries our `alias`, which is the same both times: a source for these webhooks takes its identity from
it (`/inference/file/alias`), so that the second result is a duplicate of the first. Sources:
https://docs.mindee.com/integrations/api-reference, https://api-v2.mindee.net/openapi.json.

The parameter holds, besides address and key, `model_id` and, if results are to be posted, `webhook_ids`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from functions.adapters.documents import document_of, unusable
from functions.adapters.http import (
    Answer,
    HttpCaller,
    IntegrationSecret,
    IntegrationSecrets,
    correlation,
    malformed_credential,
    secret_of,
    url_below,
)
from functions.core.clock import Clock
from functions.core.decision import Action
from functions.core.failure import Done, Failure
from functions.core.ports import Absent, Call, Documents, SettingState

PARSE = "ocr.parse"
MODEL_KEY = "model_id"  # of the integration's parameter
WEBHOOKS_KEY = "webhook_ids"


class _Job(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: str


class _JobAnswer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    job: _Job


def alias_of(action: Action) -> str:
    """What the result is known by: the document, and which reading of it."""
    return f"{action.target}#{action.action_id[:24]}"


class MindeeProvider:
    """Implements `functions.core.ports.Provider`. `definite_statuses` are the catalog's. Nothing raises for Mindee's
    trouble.
    """

    def __init__(
        self,
        http: HttpCaller,
        secrets: IntegrationSecrets,
        clock: Clock,
        documents: Documents,
        *,
        integration: str = "ocr",
        definite_statuses: frozenset[int] = frozenset(),
    ) -> None:
        self._http = http
        self._secrets = secrets
        self._clock = clock
        self._documents = documents
        self._integration = integration
        self._definite_statuses = definite_statuses

    async def send(self, action: Action, call: Call) -> Done | Failure:
        """Queue the document. A 2xx is done even when its body is lost: then the job's id is not known."""
        if action.kind != PARSE:
            return unusable("KIND_UNKNOWN", f"there is no way to do {action.kind} here")
        secret = await secret_of(self._secrets, self._integration, self._clock, call.deadline_ms)
        if isinstance(secret, Failure):
            return secret
        model = _model_of(secret)
        if isinstance(model, Failure):
            return model
        content = await document_of(self._documents, action, call)
        if isinstance(content, Failure):
            return content
        url = url_below(secret.base_url, "products", "extraction", "enqueue")
        if url is None:
            return malformed_credential("its base URL takes no path")
        answer = await self._http.exchange(
            "POST",
            url,
            headers={
                "authorization": secret.credential,
                **correlation(call.request_id, call.traceparent, action.action_id),
            },
            payload={
                **model,
                "file_base64": base64.b64encode(content).decode("ascii"),
                "filename": action.target,
                "alias": alias_of(action),
            },
            deadline_ms=call.deadline_ms,
        )
        if isinstance(answer, Failure):
            return answer
        failure = answer.failure(self._clock.now_ms(), self._definite_statuses)
        return Done(_job_id(answer)) if failure is None else failure

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:  # noqa: ARG002  # the port's
        """An idempotent kind is done again, never looked up."""
        return unusable("KIND_UNKNOWN", f"{action.kind} is not looked up")

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:  # noqa: ARG002  # the port's
        """No kind is a `setting`."""
        return unusable("KIND_UNKNOWN", f"{action.kind} is not read before it is done")

    def wanted(self, action: Action) -> str:  # noqa: ARG002  # the port's
        """Empty: see `read_setting`."""
        return ""

    def refresh_credential(self) -> str:
        """Re-read the parameter past every cache. Raises `StorageUnavailable`."""
        return self._secrets.refresh(self._integration).version


def _model_of(secret: IntegrationSecret) -> Mapping[str, Any] | Failure:
    """Which model reads the document, and who is told."""
    model, webhooks = secret.extra.get(MODEL_KEY), secret.extra.get(WEBHOOKS_KEY, [])
    if not isinstance(model, str) or not model:
        return malformed_credential(f"it holds no {MODEL_KEY}")
    if not isinstance(webhooks, list) or not all(isinstance(each, str) for each in webhooks):
        return malformed_credential(f"{WEBHOOKS_KEY} is no list of ids")
    return {"model_id": model, "webhook_ids": webhooks} if webhooks else {"model_id": model}


def _job_id(answer: Answer) -> str:
    if answer.body is None:
        return ""
    try:
        return _JobAnswer.model_validate_json(answer.body).job.id[:200]
    except ValidationError:
        return ""
