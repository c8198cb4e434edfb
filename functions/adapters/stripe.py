"""The payments `Provider` over Stripe's API v1.

| kind | target | call | looked up by |
|---|---|---|---|
| `payments.create_checkout_session` | customer | `POST /checkout/sessions` | the customer's sessions |
| `payments.refund` | payment intent or charge | `POST /refunds` | the payment's refunds |
| `payments.cancel_subscription` | subscription | `POST /subscriptions/{id}` `cancel_at_period_end` | the subscription |
| `payments.change_plan` | subscription | `POST /subscriptions/{id}` `items[0][price]` | the subscription |

All four are `keyed`: Stripe saves the first answer under `Idempotency-Key` once the endpoint has begun, 500s included,
and gives it again for the same key and parameters; keys may be pruned from 24 h on, after which the same key is a new
request (https://docs.stripe.com/api/idempotent_requests). So what goes out under a key must not change from one release
to the next: a changed field is answered with an `idempotency_error`, which says that the first call was another one.

Beyond the window we look for our marker, the action's id in `metadata`. Lookups use lists and the object itself, never
search, which may be an hour behind (https://docs.stripe.com/search#data-freshness). A subscription keeps one marker
per kind, written in the very update that it marks: one of another action tells neither way, and a person decides.

A cancellation is one at the period's end: what was paid for stays usable, and a person can take it back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from functions.adapters.http import (
    Answer,
    HttpCaller,
    IntegrationSecrets,
    correlation,
    is_header_value,
    secret_of,
    url_below,
)
from functions.core.clock import Clock
from functions.core.decision import Action
from functions.core.failure import Done, Failure, FailureClass, NetworkCause, failure_of_network
from functions.core.ports import Absent, Call, SettingState

CREATE_CHECKOUT_SESSION = "payments.create_checkout_session"
REFUND = "payments.refund"
CANCEL_SUBSCRIPTION = "payments.cancel_subscription"
CHANGE_PLAN = "payments.change_plan"
API_VERSION = "2026-09-30.endive"  # changed together with the fields that we send and read, never on its own
MARKER = "holdfast_action"  # metadata of what we create
PAGE_SIZE = 100  # the most that a list gives
MAX_PAGES = 5  # of one lookup, which has one deadline
MAX_AMOUNT = 99_999_999  # eight digits, in the currency's smallest unit
_MODES = frozenset({"payment", "subscription"})
_REASONS = frozenset({"duplicate", "fraudulent", "requested_by_customer"})
_PRORATIONS = frozenset({"create_prorations", "always_invoice", "none"})
_ID = re.compile(r"(cus|pi|ch|py|sub|si|price|plan)_[A-Za-z0-9_]{1,100}\Z")
_REQUEST_ID = re.compile(r"req_[A-Za-z0-9]{1,64}\Z")

_Model = TypeVar("_Model", bound=BaseModel)


def subscription_marker(kind: str) -> str:
    """The metadata key that marks what an action of this kind did to a subscription."""
    return "holdfast_" + kind.partition(".")[2]


class _Stripe(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Made(_Stripe):
    """A checkout session or a refund."""

    id: str = Field(min_length=1, max_length=200)
    status: str | None = None
    metadata: dict[str, str] | None = None


class _List(_Stripe):
    object: str = Field(pattern="^list$")
    has_more: bool
    data: list[_Made]


class _Price(_Stripe):
    id: str


class _Item(_Stripe):
    id: str
    price: _Price


class _Items(_Stripe):
    data: list[_Item]


class _Subscription(_Stripe):
    id: str = Field(min_length=1, max_length=200)
    status: str
    cancel_at_period_end: bool
    metadata: dict[str, str]
    items: _Items


class _Error(_Stripe):
    type: str = ""
    code: str = ""


class _ErrorAnswer(_Stripe):
    error: _Error


@dataclass(frozen=True, slots=True)
class _Request:
    """What one action sends: the path's segments, and the form without its marker."""

    segments: tuple[str, ...]
    form: Mapping[str, str]


class StripeProvider:
    """Implements `functions.core.ports.Provider`. `definite_statuses` are the catalog's. Nothing raises for Stripe's
    trouble.
    """

    def __init__(
        self,
        http: HttpCaller,
        secrets: IntegrationSecrets,
        clock: Clock,
        *,
        integration: str = "payments",
        definite_statuses: frozenset[int] = frozenset(),
    ) -> None:
        self._http = http
        self._secrets = secrets
        self._clock = clock
        self._integration = integration
        self._definite_statuses = definite_statuses

    async def send(self, action: Action, call: Call) -> Done | Failure:
        """Do it, under the action's id as key. A 2xx is done even when its body is lost: then the id is not known."""
        request = _request(action)
        if isinstance(request, Failure):
            return request
        marker = MARKER if action.kind in _LISTED else subscription_marker(action.kind)
        form = {**request.form, f"metadata[{marker}]": action.action_id}
        answer = await self._exchange("POST", request.segments, call, form=form, key=action.action_id)
        if isinstance(answer, Failure):
            return answer
        failure = self._failure(answer)
        if failure is not None:
            return failure
        made = _validated(_Made, answer)
        if made is None:
            return Done()
        return _refunded(made) if action.kind == REFUND else Done(made.id)

    async def look_up(self, action: Action, call: Call) -> Done | Absent | Failure:
        """Whether Stripe has what the action made, or the subscription as the action leaves it."""
        request = _request(action)
        if isinstance(request, Failure):
            return request
        if action.kind in _LISTED:
            return await self._find(action, request.segments, call)
        return await self._look_at_subscription(action, request.segments, call)

    async def read_setting(self, action: Action, call: Call) -> SettingState | Failure:  # noqa: ARG002  # the port's
        """No kind is a `setting`: Stripe tells what a subscription is, and not who made it so, nor when."""
        return _unsendable("KIND_UNKNOWN", f"{action.kind} is not read before it is sent")

    def wanted(self, action: Action) -> str:  # noqa: ARG002  # the port's
        """Empty: see `read_setting`."""
        return ""

    def refresh_credential(self) -> str:
        """Re-read the parameter past every cache. Raises `StorageUnavailable`."""
        return self._secrets.refresh(self._integration).version

    async def _find(self, action: Action, segments: tuple[str, ...], call: Call) -> Done | Absent | Failure:
        """Our marker among what there is for the target, newest first."""
        query = {_LISTED[action.kind](action.target): action.target, "limit": str(PAGE_SIZE)}
        for _ in range(MAX_PAGES):
            page = await self._read(_List, segments, call, query)
            if isinstance(page, Failure):
                return page
            ours = [made for made in page.data if (made.metadata or {}).get(MARKER) == action.action_id]
            if ours:
                return _all_done(action, ours)
            if not page.has_more:
                return Absent()
            if not page.data:
                return _unread("a page of a list that goes on is empty")
            query = {**query, "starting_after": page.data[-1].id}
        return _undecided(f"not found among the newest {PAGE_SIZE * MAX_PAGES}, and there are more")

    async def _look_at_subscription(
        self, action: Action, segments: tuple[str, ...], call: Call
    ) -> Done | Absent | Failure:
        found = await self._read(_Subscription, segments, call, {})
        if isinstance(found, Failure):
            return found
        marked = found.metadata.get(subscription_marker(action.kind), "")
        if marked == action.action_id or _is_as_wanted(found, action):
            return Done(found.id)
        if marked:
            return _undecided("another action has changed the subscription, before or after this one")
        return Absent()

    async def _read(
        self, model: type[_Model], segments: tuple[str, ...], call: Call, query: Mapping[str, str]
    ) -> _Model | Failure:
        """A read changes nothing, so none of its failures may have."""
        answer = await self._exchange("GET", segments, call, query=query)
        if isinstance(answer, Failure):
            return replace(answer, may_have_happened=False)
        failure = self._failure(answer)
        if failure is not None:
            return replace(failure, may_have_happened=False)
        read = _validated(model, answer)
        return _unread(answer.trouble or "the answer is not what was asked for") if read is None else read

    async def _exchange(
        self,
        method: str,
        segments: tuple[str, ...],
        call: Call,
        *,
        form: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        key: str = "",
    ) -> Answer | Failure:
        secret = await secret_of(self._secrets, self._integration, self._clock, call.deadline_ms)
        if isinstance(secret, Failure):
            return secret
        url = url_below(secret.base_url, *segments)
        bearer = f"Bearer {secret.credential}"
        if url is None or not is_header_value(bearer):
            return _unsendable("REQUEST_NOT_BUILT", "no request can be made of target and credential")
        headers = {
            "authorization": bearer,
            "stripe-version": API_VERSION,
            **correlation(call.request_id, call.traceparent, key),
        }
        if query:
            url = f"{url}?{urlencode(query)}"
        return await self._http.exchange(method, url, headers=headers, form=form, deadline_ms=call.deadline_ms)

    def _failure(self, answer: Answer) -> Failure | None:
        """The failure that the answer is, or None; Stripe's own words for it rule where they say more than its status
        (https://docs.stripe.com/error-codes).
        """
        failure = answer.failure(self._clock.now_ms(), self._definite_statuses)
        if failure is None:
            return None
        said = _validated(_ErrorAnswer, answer)
        error = _Error() if said is None else said.error
        if answer.status == 400 and error.type == "idempotency_error":
            failure = Failure(
                FailureClass.DATA_ERROR,
                "KEY_REUSED",
                "the key was first used with other parameters: what that call did is not known",
                is_retryable=False,
                may_have_happened=True,
                status=answer.status,
                answer=failure.answer,
            )
        elif error.code == "lock_timeout":  # one object is in use: no limit of ours, and nothing was changed
            failure = replace(failure, failure_class=FailureClass.TRANSIENT, code="LOCK_TIMEOUT", is_retryable=True)
        request_id = answer.headers.get("request-id", "")
        if not _REQUEST_ID.match(request_id):
            return failure
        return replace(failure, detail=f"{failure.detail}; Stripe's request {request_id}")


def _by_customer(_target: str) -> str:
    return "customer"


def _by_payment(target: str) -> str:
    return "payment_intent" if target.startswith("pi_") else "charge"


# The kinds whose effect is an object of its own, with the parameter that lists those of a target.
_LISTED: Mapping[str, Callable[[str], str]] = {CREATE_CHECKOUT_SESSION: _by_customer, REFUND: _by_payment}


def _request(action: Action) -> _Request | Failure:
    match action.kind:
        case "payments.create_checkout_session":
            return _checkout(action)
        case "payments.refund":
            return _refund(action)
        case "payments.cancel_subscription":
            if not _is_id(action.target, "sub"):
                return _invalid("the target is no subscription")
            return _Request(("subscriptions", action.target), {"cancel_at_period_end": "true"})
        case "payments.change_plan":
            return _plan(action)
        case _:
            return _unsendable("KIND_UNKNOWN", f"there is no way to do {action.kind} here")


def _checkout(action: Action) -> _Request | Failure:
    params = action.params
    mode, price, quantity = params.get("mode"), params.get("price"), params.get("quantity", 1)
    if not _is_id(action.target, "cus"):
        return _invalid("the target is no customer")
    if not _is_of(mode, _MODES) or not _is_id(price, "price", "plan") or not _is_whole(quantity, 10_000):
        return _invalid("mode, price or quantity is missing or not usable")
    form = {
        "mode": str(mode),
        "customer": action.target,
        "line_items[0][price]": str(price),
        "line_items[0][quantity]": str(quantity),
    }
    for name in ("success_url", "cancel_url"):
        if name in params or name == "success_url":
            if not _is_page(params.get(name)):
                return _invalid(f"{name} is no https URL")
            form[name] = str(params[name])
    return _Request(("checkout", "sessions"), form)


def _refund(action: Action) -> _Request | Failure:
    if not _is_id(action.target, "pi", "ch", "py"):
        return _invalid("the target is no payment")
    form = {_by_payment(action.target): action.target}
    amount, reason = action.params.get("amount"), action.params.get("reason")
    if amount is not None:
        if not _is_whole(amount, MAX_AMOUNT):
            return _invalid("amount is not a number of the currency's smallest units")
        form["amount"] = str(amount)
    if reason is not None:
        if not _is_of(reason, _REASONS):
            return _invalid("reason is none that Stripe knows")
        form["reason"] = str(reason)
    return _Request(("refunds",), form)


def _plan(action: Action) -> _Request | Failure:
    """The item is named, because a price without one would be added to the subscription beside the old one. A change
    that has to be paid and is not is refused as a whole.
    """
    item, price = action.params.get("item"), action.params.get("price")
    proration = action.params.get("proration", "create_prorations")
    if not _is_id(action.target, "sub"):
        return _invalid("the target is no subscription")
    if not _is_id(item, "si") or not _is_id(price, "price", "plan") or not _is_of(proration, _PRORATIONS):
        return _invalid("item, price or proration is missing or not usable")
    form = {
        "items[0][id]": str(item),
        "items[0][price]": str(price),
        "proration_behavior": str(proration),
        "payment_behavior": "error_if_incomplete",
    }
    return _Request(("subscriptions", action.target), form)


def _is_as_wanted(found: _Subscription, action: Action) -> bool:
    if action.kind == CANCEL_SUBSCRIPTION:
        return found.cancel_at_period_end or found.status == "canceled"
    wanted = action.params.get("item"), action.params.get("price")
    return any((item.id, item.price.id) == wanted for item in found.items.data)


def _all_done(action: Action, made: Sequence[_Made]) -> Done | Failure:
    """What bears the action's marker, newest first. Of refunds one that moved no money is none: a person may have asked
    for another, which did.
    """
    unique = {one.id: one for one in made}
    outcomes = [_refunded(one) if action.kind == REFUND else Done(one.id) for one in unique.values()]
    done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
    return replace(done[0], times=len(done)) if done else outcomes[0]


def _refunded(made: _Made) -> Done | Failure:
    """A refund that the bank refused was made and moved no money: another one is for a person to decide."""
    if made.status not in ("failed", "canceled"):
        return Done(made.id)
    return Failure(
        FailureClass.DATA_ERROR,
        "REFUND_NOT_PAID",
        f"Stripe has the refund, as {made.status}",
        is_retryable=False,
        may_have_happened=False,
    )


def _is_id(value: object, *kinds: str) -> bool:
    return isinstance(value, str) and bool(_ID.match(value)) and value.partition("_")[0] in kinds


def _is_of(value: object, words: frozenset[str]) -> bool:
    return isinstance(value, str) and value in words


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_page(value: object) -> bool:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 2000:
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname)


def _validated(model: type[_Model], answer: Answer) -> _Model | None:
    if answer.body is None:
        return None
    try:
        return model.model_validate_json(answer.body)
    except ValidationError:
        return None


def _invalid(detail: str) -> Failure:
    return _unsendable("PARAMS_INVALID", detail)


def _unsendable(code: str, detail: str) -> Failure:
    return Failure(FailureClass.DATA_ERROR, code, detail, is_retryable=False, may_have_happened=False)


def _undecided(detail: str) -> Failure:
    """Stripe answered, and the answer says neither yes nor no: for a person, with the effect still unknown."""
    return Failure(
        FailureClass.UNKNOWN_OUTCOME, "LOOKUP_UNDECIDED", detail, is_retryable=False, may_have_happened=False
    )


def _unread(detail: str) -> Failure:
    return replace(failure_of_network(NetworkCause.PROTOCOL, detail), may_have_happened=False)
