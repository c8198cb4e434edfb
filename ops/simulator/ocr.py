"""A double of Mindee's API v2, as far as its public documentation tells: documents are queued to be read.

Known, and where from: `POST /v2/products/extraction/enqueue` with `model_id`, a file in base64 and `alias` answers 202
and a job; `GET /v2/jobs/{id}` tells how it stands; the key goes bare in `Authorization`; errors carry `status`,
`title`, `detail` and `code`: https://docs.mindee.com/integrations/api-reference,
https://api-v2.mindee.net/openapi.json. No idempotency key is documented: a document that is sent twice is read twice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
from collections import OrderedDict
from typing import Any

from ops.simulator.http import Call, Reply, Request, reply_json
from ops.simulator.record import Record, now_text

PROVIDER = "ocr"
PREFIX = "/mindee/v2"
MAX_JOBS = 50_000


def _error(status: int, code: str, detail: str) -> Reply:
    return reply_json(status, {"status": status, "title": "refused", "detail": detail, "code": code, "errors": []})


class Ocr:
    """The queue of documents. The caller holds the world's lock while `perform` runs."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._jobs: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._numbers = itertools.count(1)
        self.accepted_keys: frozenset[str] | None = None

    def call(self, request: Request) -> Call | None:
        """What the request asks for, or None when it is not for this provider."""
        if not request.path.startswith(PREFIX + "/"):
            return None
        path = request.path[len(PREFIX) :]
        if request.method == "POST" and path == "/products/extraction/enqueue":
            alias = str((request.json_object() or {}).get("alias", ""))
            return Call(PROVIDER, "enqueue", alias, lambda: self._refused(request) or self._enqueue(request, alias))
        if request.method == "GET" and path.startswith("/jobs/"):
            job_id = path.removeprefix("/jobs/")
            return Call(PROVIDER, "get_job", job_id, lambda: self._refused(request) or self._show(job_id))
        return Call(PROVIDER, "unknown", "", lambda: _error(404, "404-001", "no such resource"))

    def _refused(self, request: Request) -> Reply | None:
        key = request.headers.get("authorization", "")
        if not key or (self.accepted_keys is not None and key not in self.accepted_keys):
            return _error(401, "401-001", "the API key is missing or not valid")
        return None

    def _enqueue(self, request: Request, alias: str) -> Reply:
        body = request.json_object()
        if body is None or not isinstance(body.get("model_id"), str) or not body["model_id"]:
            return _error(422, "422-001", "model_id is required")
        try:
            content = base64.b64decode(str(body.get("file_base64", "")), validate=True)
        except binascii.Error:
            return _error(422, "422-002", "file_base64 is not base64")
        if not content:
            return _error(422, "422-003", "there is no file")
        while len(self._jobs) >= MAX_JOBS:
            self._jobs.popitem(last=False)
        job_id = f"00000000-0000-4000-8000-{next(self._numbers):012d}"
        job = self._jobs[job_id] = {
            "id": job_id,
            "model_id": body["model_id"],
            "filename": body.get("filename"),
            "alias": alias or None,
            "created_at": now_text(),
            "status": "Processing",
            "polling_url": f"https://api-v2.mindee.net/v2/jobs/{job_id}",
            "result_url": None,
            "webhooks": [{"id": each, "status": "Processing"} for each in body.get("webhook_ids", [])],
            "error": None,
        }
        detail = {"job_id": job_id, "sha256": hashlib.sha256(content).hexdigest()}
        self._record.effect(
            request, provider=PROVIDER, kind="enqueue", target=alias, key=alias, params=body, detail=detail
        )
        return reply_json(202, {"job": job})

    def _show(self, job_id: str) -> Reply:
        job = self._jobs.get(job_id)
        return _error(404, "404-002", "no such job") if job is None else reply_json(200, {"job": job})
