"""A double of an OpenAI-compatible chat completions endpoint: `POST /v1/chat/completions`.

It honours `response_format` of type `json_schema` (https://platform.openai.com/docs/guides/structured-outputs): the
label is taken from the schema's `label.enum`, by counting words. Hints are the words of the label's own name, a short
built-in list, and lines of the system message in the form `- label: description`. Same text, same answer. "unsure" in
the text gives confidence 0.4.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ops.simulator.http import Call, Reply, Request, reply_json

PROVIDER = "llm"
PATH = "/v1/chat/completions"
_WORD = re.compile(r"[a-z0-9']+")
_HINT_LINE = re.compile(r"^[-* \t]*`?([A-Za-z0-9_-]{1,64})`?[ \t]*:[ \t]*(.+)$", re.MULTILINE)
_BUILT_IN: dict[str, tuple[str, ...]] = {
    "billing": ("invoice", "charged", "charge", "bill", "billing", "payment", "card", "receipt"),
    "refund": ("refund", "money", "reimburse"),
    "chargeback": ("chargeback", "dispute", "disputed", "bank"),
    "dispute": ("chargeback", "dispute", "disputed", "bank"),
    "order": ("order", "package", "parcel", "tracking", "delivery", "arrived", "where"),
    "shipping": ("shipping", "shipped", "package", "parcel", "tracking", "delivery", "arrived", "late"),
    "return": ("return", "returns", "exchange", "size"),
    "returns": ("return", "returns", "exchange", "size"),
    "cancel": ("cancel", "cancellation", "unsubscribe"),
    "cancellation": ("cancel", "cancellation", "unsubscribe"),
    "technical": ("error", "bug", "crash", "crashes", "broken", "login", "password", "app", "website"),
    "account": ("account", "login", "password", "email", "profile"),
    "sales": ("buy", "price", "quote", "discount", "wholesale"),
    "product": ("product", "size", "color", "stock", "material"),
}
_COMMON_WORDS = """
a about an and anything are as ask asks at be but by customer customers do does else for from has have he how
i in into is it its like message messages my not of on or other our out question questions say says she so
someone such than that the their them there they thing things this ticket to us want wants was we were what
when where which who whose why will wish wishes with without would you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_FALLBACK_NAMES = ("other", "general", "unknown", "default")


@dataclass(frozen=True, slots=True)
class _Answer:
    label: str
    confidence: float
    reason_codes: tuple[str, ...]


def _error(status: int, message: str, code: str) -> Reply:
    return reply_json(
        status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    )


def _text_of(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def classify(text: str, labels: list[str], hints: dict[str, tuple[str, ...]]) -> _Answer:
    """The label whose words occur most often in the text."""
    words = set(_WORD.findall(text.lower()))
    scores: list[tuple[int, str]] = []
    for label in labels:
        own = _WORD.findall(label.lower().replace("_", " ").replace("-", " "))
        wanted = set(own) | set(hints.get(label, ())) | {word for part in own for word in _BUILT_IN.get(part, ())}
        scores.append((len(words & wanted), label))
    best = max(score for score, _ in scores)
    winners = [label for score, label in scores if score == best]
    if best == 0:
        fallback = next((label for name in _FALLBACK_NAMES for label in labels if name in label.lower()), labels[0])
        return _Answer(fallback, 0.4 if "unsure" in words else 0.35, ("no_match",))
    confidence = 0.4 if "unsure" in words else (0.82, 0.9, 0.96)[min(best, 3) - 1] - (0.2 if len(winners) > 1 else 0.0)
    return _Answer(winners[0], round(confidence, 2), ("several_topics",) if len(winners) > 1 else ("clear_intent",))


def _hints(system: str, labels: list[str]) -> dict[str, tuple[str, ...]]:
    """The words of each label's description that say something: no common ones, and none that two labels share."""
    described = {
        name: set(_WORD.findall(words.lower())) - _COMMON
        for name, words in _HINT_LINE.findall(system)
        if name in labels
    }
    shared = Counter(word for words in described.values() for word in words)
    return {name: tuple(word for word in words if shared[word] == 1) for name, words in described.items()}


class Llm:
    """The endpoint. It has no side effects; what it used is counted."""

    def __init__(self) -> None:
        self.accepted_keys: frozenset[str] | None = None
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def call(self, request: Request) -> Call | None:
        """What the request asks for, or None when it is not for this provider."""
        if request.path != PATH:
            return None
        return Call(PROVIDER, "chat_completions", "", lambda: self._complete(request))

    def _complete(self, request: Request) -> Reply:
        if request.method != "POST":
            return _error(405, "method not allowed", "method_not_allowed")
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key or (self.accepted_keys is not None and key not in self.accepted_keys):
            return _error(401, "incorrect API key provided", "invalid_api_key")
        body = request.json_object()
        if (
            body is None
            or not isinstance(body.get("model"), str)
            or not isinstance(body.get("messages"), list)
            or not body["messages"]
        ):
            return _error(400, "model and messages are required", "invalid_request")
        messages = body["messages"]
        text = next(
            (
                _text_of(message)
                for message in reversed(messages)
                if isinstance(message, dict) and message.get("role") == "user"
            ),
            "",
        )
        system = "\n".join(
            _text_of(message) for message in messages if isinstance(message, dict) and message.get("role") != "user"
        )
        try:
            content = self._content(body.get("response_format"), text, system)
        except (KeyError, TypeError, AttributeError, IndexError):
            return _error(400, "response_format needs json_schema.schema.properties.label.enum", "invalid_schema")
        return self._wrap(body, content, sum(len(_text_of(message)) for message in messages))

    def _content(self, response_format: Any, text: str, system: str) -> str:
        if response_format is None or response_format.get("type") != "json_schema":
            return "I have read the message."
        properties = response_format["json_schema"]["schema"]["properties"]
        labels = [str(label) for label in properties["label"]["enum"]]
        hints = {
            name: tuple(_WORD.findall(words.lower())) for name, words in _HINT_LINE.findall(system) if name in labels
        }
        answer = classify(text, labels, hints)
        codes = list(answer.reason_codes)
        allowed = (properties.get("reason_codes", {}).get("items") or {}).get("enum")
        if allowed:
            codes = [str(allowed[0])]
        return json.dumps(
            {"label": answer.label, "confidence": answer.confidence, "reason_codes": codes}, separators=(",", ":")
        )

    def _wrap(self, body: dict[str, Any], content: str, prompt_chars: int) -> Reply:
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        needed, finish_reason = max(1, len(content) // 4), "stop"
        if isinstance(limit, int) and needed > limit:
            content, needed, finish_reason = content[: limit * 4], limit, "length"
        prompt_tokens = max(1, prompt_chars // 4)
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += needed
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": content, "refusal": None},
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return reply_json(
            200,
            {
                "id": "chatcmpl-" + hashlib.sha256(content.encode()).hexdigest()[:24],
                "object": "chat.completion",
                "created": int(datetime.now(UTC).timestamp()),
                "model": body["model"],
                "choices": [choice],
                "usage": {
                    "prompt_tokens": prompt_tokens,
                    "completion_tokens": needed,
                    "total_tokens": prompt_tokens + needed,
                },
            },
        )
