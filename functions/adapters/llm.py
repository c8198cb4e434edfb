"""The `Classifier` over an OpenAI-compatible chat completions API
(https://platform.openai.com/docs/api-reference/chat/create).

One call, no retry, one wall-clock deadline. The answer must fit a JSON schema whose labels are a closed set, so text
that tries to steer the model can at most mislabel itself. Anything but a valid answer in time is
`ClassifierUnavailable` with one of `Reason`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from functions.adapters.http import (
    Answer,
    HttpCaller,
    IntegrationSecret,
    IntegrationSecrets,
    is_header_value,
    secret_of,
)
from functions.core.clock import Clock
from functions.core.decision import Classification, DecidedBy
from functions.core.failure import ClassifierUnavailable, Failure, FailureClass

DEADLINE_SECONDS = 2.5  # of one classification in all
MAX_ANSWER_TOKENS = 60
MAX_REASON_CODES = 3
MODEL_KEY = "model"  # of the integration's parameter
_REASON_CODE = re.compile(r"[a-z0-9_]{1,24}\Z")


class Reason(StrEnum):
    """Why there is no classification. Stable, for metrics and for the decision's reason codes."""

    DEADLINE = "LLM_DEADLINE"
    UNREACHABLE = "LLM_UNREACHABLE"
    RATE_LIMITED = "LLM_RATE_LIMITED"
    AUTH = "LLM_AUTH"
    REFUSED_REQUEST = "LLM_REFUSED_REQUEST"
    SERVER_ERROR = "LLM_SERVER_ERROR"
    DECLINED = "LLM_DECLINED"
    CUT_SHORT = "LLM_CUT_SHORT"
    BAD_ANSWER = "LLM_BAD_ANSWER"
    NOT_CONFIGURED = "LLM_NOT_CONFIGURED"


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")

    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    model_config = ConfigDict(extra="ignore")

    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model: str = Field(default="", max_length=200)
    choices: list[_Choice] = Field(min_length=1)


class _Label(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    label: str
    confidence: float = Field(ge=0, le=1, allow_inf_nan=False)
    reason_codes: list[str] = Field(max_length=50)


class LlmClassifier:
    """Implements `functions.core.ports.Classifier`. `prompt_version` and the model's name make the classification's
    version.
    """

    def __init__(
        self,
        http: HttpCaller,
        secrets: IntegrationSecrets,
        clock: Clock,
        *,
        prompt: str,
        prompt_version: str,
        default_model: str,
        integration: str = "llm",
    ) -> None:
        self._http = http
        self._secrets = secrets
        self._clock = clock
        self._prompt = prompt
        self._prompt_version = prompt_version
        self._default_model = default_model
        self._integration = integration
        self._was_refused_with = ""

    async def classify(self, text: str, labels: Mapping[str, str], deadline_ms: int) -> Classification:
        """Label the text with one of `labels`. Ends by `deadline_ms`, and 2.5 s after its start at the latest."""
        deadline_ms = min(deadline_ms, self._clock.now_ms() + int(DEADLINE_SECONDS * 1000))
        secret = await self._secret(deadline_ms)
        model = str(secret.extra.get(MODEL_KEY) or self._default_model)
        answer = await self._http.exchange(
            "POST",
            f"{secret.base_url.rstrip('/')}/chat/completions",
            headers={"authorization": f"Bearer {secret.credential}"},
            payload=self._request(model, text, labels),
            deadline_ms=deadline_ms,
        )
        if isinstance(answer, Failure):
            _unavailable_after(answer)
        failure = answer.failure(self._clock.now_ms())
        if failure is not None:
            if failure.failure_class is FailureClass.AUTH_ERROR:
                self._was_refused_with = secret.version
            _unavailable_after(failure)
        return self._classification(answer, labels, model)

    async def _secret(self, deadline_ms: int) -> IntegrationSecret:
        secret = await secret_of(
            self._secrets, self._integration, self._clock, deadline_ms, past_cache_of=self._was_refused_with
        )
        self._was_refused_with = ""
        if isinstance(secret, Failure):
            raise ClassifierUnavailable(Reason.NOT_CONFIGURED, secret.code)
        if not is_header_value(f"Bearer {secret.credential}"):
            raise ClassifierUnavailable(Reason.NOT_CONFIGURED, "the key cannot be sent")
        return secret

    def _request(self, model: str, text: str, labels: Mapping[str, str]) -> dict[str, Any]:
        described = "\n".join(f"- {name}: {description}" for name, description in labels.items())
        schema = {
            "type": "object",
            "properties": {
                "label": {"type": "string", "enum": list(labels)},
                "confidence": {"type": "number", "description": "0 to 1: how sure the label is"},
                "reason_codes": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": f"at most {MAX_REASON_CODES} short snake_case words",
                },
            },
            "required": ["label", "confidence", "reason_codes"],
            "additionalProperties": False,
        }
        return {
            "model": model,
            "messages": [
                {"role": "system", "content": f"{self._prompt.rstrip()}\n\nLabels:\n{described}"},
                {"role": "user", "content": text},
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "classification", "strict": True, "schema": schema},
            },
            "temperature": 0,
            "max_tokens": MAX_ANSWER_TOKENS,
        }

    def _classification(self, answer: Answer, labels: Mapping[str, str], model: str) -> Classification:
        if answer.body is None:
            raise ClassifierUnavailable(Reason.BAD_ANSWER, answer.trouble)
        try:
            choice = _Completion.model_validate_json(answer.body).choices[0]
        except ValidationError as exc:
            raise ClassifierUnavailable(Reason.BAD_ANSWER, "the answer is no completion") from exc
        if choice.message.refusal or choice.finish_reason == "content_filter":
            raise ClassifierUnavailable(Reason.DECLINED)
        if choice.finish_reason == "length":
            raise ClassifierUnavailable(Reason.CUT_SHORT)
        try:
            said = _Label.model_validate_json(choice.message.content or "")
        except ValidationError as exc:
            raise ClassifierUnavailable(Reason.BAD_ANSWER, "the content does not fit the schema") from exc
        if said.label not in labels:
            raise ClassifierUnavailable(Reason.BAD_ANSWER, "the label is none of those asked for")
        codes = tuple(code for code in said.reason_codes if _REASON_CODE.match(code))[:MAX_REASON_CODES]
        version = f"{model}/{self._prompt_version}"
        return Classification(said.label, said.confidence, DecidedBy.LLM, version, codes)


def _unavailable_after(failure: Failure) -> NoReturn:
    """Raise what a failed call means to the one who asked for a label."""
    match failure:
        case Failure(failure_class=FailureClass.RATE_LIMITED):
            reason = Reason.RATE_LIMITED
        case Failure(failure_class=FailureClass.AUTH_ERROR):
            reason = Reason.AUTH
        case Failure(status=None):
            is_late = failure.code in ("DEADLINE_EXCEEDED", "READ_TIMEOUT", "NOT_STARTED", "CONNECT_TIMEOUT")
            reason = Reason.DEADLINE if is_late else Reason.UNREACHABLE
        case Failure(status=int(status)) if status >= 500:
            reason = Reason.SERVER_ERROR
        case _:
            reason = Reason.REFUSED_REQUEST
    stated_ms = failure.retry_after_ms if reason is Reason.RATE_LIMITED else None
    raise ClassifierUnavailable(reason, failure.code, stated_ms)
