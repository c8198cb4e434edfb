"""What a caller of replay may ask for. Anything else is refused with a stable code and the place of the mistake."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from functions.core.failure import HoldfastError
from functions.core.replay import DEFAULT_LIMIT, MAX_LIMIT, Filter

INVALID_PAYLOAD = "INT-400-INVALID-PAYLOAD"
MAX_VALUES = 100
MAX_AGE_SECONDS = 400 * 86_400


class InvalidRequest(HoldfastError):
    """The request cannot be carried out as it stands. `problems` name each place and what is wrong there."""

    def __init__(self, problems: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{one['field']}: {one['problem']}" for one in problems))
        self.problems = problems


def _listed(value: Any) -> Any:
    """One value may be written without a list around it."""
    return [value] if isinstance(value, str) else value


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
_Texts = Annotated[list[_Text], BeforeValidator(_listed), Field(min_length=1, max_length=MAX_VALUES)]
_Statuses = Annotated[list[Literal["failed", "dlq"]], BeforeValidator(_listed), Field(min_length=1, max_length=2)]
_Seconds = Annotated[int, Field(strict=True, ge=1, le=MAX_AGE_SECONDS)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilterModel(_Model):
    """Criteria. Each takes one value or a list."""

    integration: _Texts | None = None
    status: _Statuses | None = None
    failure_code: _Texts | None = None
    root_cause: _Texts | None = None
    source: _Texts | None = None
    tenant: _Texts | None = None
    flow: _Texts | None = None
    event_name: _Texts | None = None
    recovery_id: _Texts | None = None
    recovery_ids: _Texts | None = None
    older_than_seconds: _Seconds | None = None
    newer_than_seconds: _Seconds | None = None

    def to_filter(self) -> Filter:
        """The filter that core works with."""
        return Filter(
            integration=frozenset(self.integration or ()),
            status=frozenset(self.status or ()),
            failure_code=frozenset(self.failure_code or ()),
            root_cause=frozenset(self.root_cause or ()),
            source=frozenset(self.source or ()),
            tenant=frozenset(self.tenant or ()),
            flow=frozenset(self.flow or ()),
            event_name=frozenset(self.event_name or ()),
            recovery_id=frozenset([*(self.recovery_id or ()), *(self.recovery_ids or ())]),
            older_than_ms=None if self.older_than_seconds is None else self.older_than_seconds * 1000,
            newer_than_ms=None if self.newer_than_seconds is None else self.newer_than_seconds * 1000,
        )


class ReplayRequest(_Model):
    """Who wants which rows tried again, and why."""

    filter: FilterModel
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
    actor: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    limit: Annotated[int, Field(strict=True, ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    dry_run: Annotated[bool, Field(strict=True)] = False


def read(payload: object) -> tuple[ReplayRequest, Filter]:
    """The request and its filter. Raises `InvalidRequest`; an empty filter is one, for it would mean everything."""
    try:
        request = ReplayRequest.model_validate(payload)
    except ValidationError as exc:
        raise InvalidRequest(
            [
                {"field": ".".join(str(part) for part in problem["loc"]) or "payload", "problem": problem["msg"]}
                for problem in exc.errors(include_input=False, include_url=False, include_context=False)
            ]
        ) from exc
    wanted = request.filter.to_filter()
    if wanted.is_empty:
        raise InvalidRequest([{"field": "filter", "problem": "an empty filter would mean every item there is"}])
    return request, wanted
