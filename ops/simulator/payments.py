"""A double of Stripe's API v1, as far as its public documentation tells: checkout sessions, refunds, subscriptions.

Known, and where from:

- Base URL `https://api.stripe.com/v1`, bearer key, form-encoded bodies, JSON answers, errors as
  `{"error": {"type", "code", "message", "param"}}`, header `Request-Id`: https://docs.stripe.com/api/errors
- Idempotency keys on POST, https://docs.stripe.com/api/idempotent_requests: the first answer is saved once the endpoint
  has begun, 500s and failures included, and given again; other parameters are refused (400, `idempotency_error`), a
  concurrent call too (409, `idempotency_key_in_use`); neither that nor a failed validation is saved. Keys are pruned.
- Lists are newest first, with `limit`, `starting_after` and `has_more`; sessions by `customer`, refunds by
  `payment_intent` or `charge`: https://docs.stripe.com/api/pagination, https://docs.stripe.com/api/refunds/list

A customer, payment or subscription comes into being when it is first touched, except ids such as `cus_missing1`, which
are not there. A payment is of 10,000; subscription `sub_x` has one item `si_x` at `price_basic`.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from ops.simulator.http import Call, Reply, Request, reply_json
from ops.simulator.keys import Keys, Refused
from ops.simulator.record import Record

PROVIDER = "payments"
PREFIX = "/stripe/v1"
PAYMENT_AMOUNT = 10_000
MAX_OBJECTS = 50_000
_LISTS = {"checkout/sessions": ("customer",), "refunds": ("payment_intent", "charge")}

_SUBSCRIPTION_FIELDS = frozenset({"items[0][id]", "items[0][price]", "proration_behavior", "payment_behavior"})


@dataclass(slots=True)
class Subscription:
    """One subscription with one item."""

    subscription_id: str
    price: str = "price_basic"
    status: str = "active"
    cancel_at_period_end: bool = False
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def item_id(self) -> str:
        """Its item's id."""
        return "si_" + self.subscription_id.partition("_")[2]

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        item = {"id": self.item_id, "object": "subscription_item", "price": {"id": self.price, "object": "price"}}
        return {
            "id": self.subscription_id,
            "object": "subscription",
            "status": self.status,
            "cancel_at_period_end": self.cancel_at_period_end,
            "metadata": dict(self.metadata),
            "items": {"object": "list", "has_more": False, "data": [item]},
        }


class _Invalid(Exception):
    """A parameter does not make sense: the endpoint does not begin."""

    def __init__(self, param: str, code: str = "parameter_invalid_empty") -> None:
        super().__init__(param)
        self.param, self.code = param, code


def _error(status: int, error_type: str, code: str, message: str, param: str = "") -> Reply:
    error = {"type": error_type, "message": message, **({"code": code} if code else {})}
    return reply_json(status, {"error": {**error, **({"param": param} if param else {})}})


def _missing(what: str) -> Reply:
    return _error(404, "invalid_request_error", "resource_missing", f"no such {what}")


class Payments:
    """The account, and the API on it. The caller holds the world's lock while `perform` runs."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._keys = Keys()
        self._made: dict[str, OrderedDict[str, dict[str, Any]]] = {name: OrderedDict() for name in _LISTS}
        self._subscriptions: OrderedDict[str, Subscription] = OrderedDict()
        self._numbers = itertools.count(1)
        self.accepted_keys: frozenset[str] | None = None

    def call(self, request: Request) -> Call | None:
        """What the request asks for, or None when it is not for this provider."""
        if not request.path.startswith(PREFIX + "/"):
            return None
        resource = unquote(request.path[len(PREFIX) + 1 :])
        first, _, target = resource.partition("/")
        if resource not in _LISTS and (first != "subscriptions" or not target or "/" in target):
            missing = _error(404, "invalid_request_error", "", "unrecognized request URL")
            return Call(PROVIDER, "unknown", "", lambda: missing)
        if request.method == "GET":
            return self._read(request, resource, target)
        if request.method != "POST":
            refused = _error(405, "invalid_request_error", "", "method not allowed")
            return Call(PROVIDER, "unknown", "", lambda: refused)
        return self._write(request, resource, target)

    def subscription(self, subscription_id: str) -> Subscription:
        """The subscription, made now if nobody touched it before."""
        found = self._subscriptions.get(subscription_id)
        if found is None:
            while len(self._subscriptions) >= MAX_OBJECTS:
                self._subscriptions.popitem(last=False)
            found = self._subscriptions[subscription_id] = Subscription(subscription_id)
        return found

    def person(self, subscription_id: str, change: Mapping[str, Any]) -> Subscription:
        """A person at the dashboard changes a subscription: `price`, `status`, `cancel_at_period_end`."""
        found = self.subscription(subscription_id)
        found.price = str(change.get("price", found.price))
        found.status = str(change.get("status", found.status))
        found.cancel_at_period_end = bool(change.get("cancel_at_period_end", found.cancel_at_period_end))
        return found

    def prune(self, older_than_seconds: float) -> int:
        """Forget keys of at least this age. Gives how many."""
        return self._keys.prune(older_than_seconds)

    # ------------------------------------------------------------------------------------------------------- reading

    def _read(self, request: Request, resource: str, target: str) -> Call:
        if resource in _LISTS:
            name = next((each for each in _LISTS[resource] if each in request.query), "")
            wanted = request.query.get(name, "")
            operation = "list_" + resource.replace("/", "_")
            return Call(PROVIDER, operation, wanted, lambda: self._guarded(request, lambda: self._list(request, name)))

        def show() -> Reply:
            is_missing = target.startswith("sub_missing")
            return _missing("subscription") if is_missing else reply_json(200, self.subscription(target).to_json())

        return Call(PROVIDER, "get_subscription", target, lambda: self._guarded(request, show))

    def _list(self, request: Request, name: str) -> Reply:
        resource = request.path[len(PREFIX) + 1 :]
        wanted, after = request.query.get(name, ""), request.query.get("starting_after", "")
        limit_text = request.query.get("limit", "10")
        if not limit_text.isdigit() or not 1 <= int(limit_text) <= 100:
            return _error(400, "invalid_request_error", "parameter_invalid_integer", "limit is 1 to 100", "limit")
        newest_first = list(reversed(self._made[resource].values()))
        if after:
            if after not in self._made[resource]:
                return _missing("object to start after")
            newest_first = newest_first[[made["id"] for made in newest_first].index(after) + 1 :]
        found = [made for made in newest_first if not name or made[name] == wanted]
        page = found[: int(limit_text)]
        answer = {"object": "list", "url": f"/v1/{resource}", "has_more": len(found) > len(page), "data": page}
        return reply_json(200, answer)

    # ------------------------------------------------------------------------------------------------------- writing

    def _write(self, request: Request, resource: str, subscription_id: str) -> Call:
        form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
        operation, target, perform = self._understood(request, resource, subscription_id, form)

        def answer(reply: Reply) -> Call:
            return Call(PROVIDER, operation, target, lambda: reply)

        refused = self._refused(request)
        if refused is not None:
            return answer(refused)
        key = request.headers.get("idempotency-key", "")
        if not key:
            return Call(PROVIDER, operation, target, lambda: self._begun(perform, None))
        claimed = self._keys.claim(key, hashlib.sha256(request.path.encode() + b"\n" + request.body).hexdigest())
        if claimed is Refused.REUSED:
            message = "keys can only be used with the parameters that they were first used with"
            return answer(_error(400, "idempotency_error", "", message))
        if claimed is Refused.IN_USE:
            message = "there is another request in progress with this key"
            return answer(_error(409, "idempotency_error", "idempotency_key_in_use", message))
        if isinstance(claimed, Reply):
            return answer(claimed)

        def keep(reply: Reply) -> None:
            claimed.reply = reply

        def begin() -> Reply:
            return self._begun(perform, keep, lambda: self._keys.forget(key))

        return Call(PROVIDER, operation, target, begin, lambda: self._keys.forget(key), keep)

    def _begun(
        self,
        perform: Callable[[], Reply],
        keep: Callable[[Reply], None] | None,
        forget: Callable[[], None] | None = None,
    ) -> Reply:
        try:
            reply = perform()
        except _Invalid as exc:
            if forget is not None:
                forget()
            return _error(400, "invalid_request_error", exc.code, f"{exc.param} is not usable", exc.param)
        reply = Reply(reply.status, reply.body, reply.content_type, {"Request-Id": f"req_{next(self._numbers)}"})
        if keep is not None:
            keep(reply)
        return reply

    def _understood(
        self, request: Request, resource: str, subscription_id: str, form: dict[str, str]
    ) -> tuple[str, str, Callable[[], Reply]]:
        match resource:
            case "checkout/sessions":
                return "create_checkout_session", form.get("customer", ""), lambda: self._checkout(request, form)
            case "refunds":
                target = form.get("payment_intent", "") or form.get("charge", "")
                return "refund", target, lambda: self._refund(request, form, target)
            case _:
                operation = "cancel_subscription" if "cancel_at_period_end" in form else "change_plan"
                return operation, subscription_id, lambda: self._update(request, form, subscription_id, operation)

    def _checkout(self, request: Request, form: dict[str, str]) -> Reply:
        _need(
            form, {"mode", "line_items[0][price]", "line_items[0][quantity]", "success_url"}, {"customer", "cancel_url"}
        )
        customer = form.get("customer")
        if customer is not None and customer.startswith("cus_missing"):
            return _missing("customer")
        made = self._make(
            "checkout/sessions",
            "cs_test_",
            {
                "object": "checkout.session",
                "customer": customer,
                "mode": form["mode"],
                "status": "open",
                "metadata": _metadata(form),
            },
        )
        self._effect(request, "create_checkout_session", customer or "", form, {"id": made["id"]})
        return reply_json(200, {**made, "url": f"https://checkout.stripe.com/c/pay/{made['id']}"})

    def _refund(self, request: Request, form: dict[str, str], target: str) -> Reply:
        _need(form, set(), {"payment_intent", "charge", "amount", "reason"})
        if not target:
            raise _Invalid("payment_intent", "parameter_missing")
        if target.partition("_")[2].startswith("missing"):
            return _missing("payment")
        name = "payment_intent" if "payment_intent" in form else "charge"
        refunded = sum(each["amount"] for each in self._made["refunds"].values() if each[name] == target)
        left = PAYMENT_AMOUNT - refunded
        amount_text = form.get("amount", str(left))
        if not amount_text.isdigit() or (int(amount_text) == 0 and left):
            raise _Invalid("amount", "parameter_invalid_integer")
        if int(amount_text) > left or not left:
            return _error(400, "invalid_request_error", "charge_already_refunded", "more than is left of the payment")
        made = self._make(
            "refunds",
            "re_",
            {
                "object": "refund",
                "payment_intent": target if name == "payment_intent" else None,
                "charge": target if name == "charge" else None,
                "amount": int(amount_text),
                "status": "failed" if "unpayable" in target else "succeeded",
                "metadata": _metadata(form),
            },
        )
        self._effect(request, "refund", target, form, {"id": made["id"], "amount": amount_text})
        return reply_json(200, made)

    def _update(self, request: Request, form: dict[str, str], subscription_id: str, operation: str) -> Reply:
        _need(form, set(), _SUBSCRIPTION_FIELDS | {"cancel_at_period_end"})
        if subscription_id.startswith("sub_missing"):
            return _missing("subscription")
        found = self.subscription(subscription_id)
        if found.status == "canceled":
            return _error(400, "invalid_request_error", "", "a canceled subscription cannot be updated")
        price = form.get("items[0][price]")
        if price is not None and form.get("items[0][id]") != found.item_id:
            return _error(400, "invalid_request_error", "", "no such subscription item", "items[0][id]")
        if price is not None and "declined" in price and form.get("payment_behavior") == "error_if_incomplete":
            return _error(402, "card_error", "card_declined", "the card was declined")
        ends = form.get("cancel_at_period_end", str(found.cancel_at_period_end).lower()) == "true"
        changed = (price or found.price, ends) != (found.price, found.cancel_at_period_end)
        found.price, found.cancel_at_period_end = price or found.price, ends
        found.metadata.update(_metadata(form))
        detail = {"price": found.price, "cancel_at_period_end": str(ends).lower()}
        self._effect(request, operation, subscription_id, form, detail, changed=changed)
        return reply_json(200, found.to_json())

    # --------------------------------------------------------------------------------------------------------- parts

    def _guarded(self, request: Request, perform: Callable[[], Reply]) -> Reply:
        return self._refused(request) or perform()

    def _refused(self, request: Request) -> Reply | None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key or (self.accepted_keys is not None and key not in self.accepted_keys):
            return _error(401, "invalid_request_error", "", "invalid API key provided")
        if not request.headers.get("stripe-version"):
            return _error(400, "invalid_request_error", "", "this double insists on Stripe-Version")
        return None

    def _make(self, resource: str, prefix: str, content: dict[str, Any]) -> dict[str, Any]:
        objects = self._made[resource]
        while len(objects) >= MAX_OBJECTS:
            objects.popitem(last=False)
        made = {"id": f"{prefix}{next(self._numbers)}", "created": int(time.time()), **content}
        objects[made["id"]] = made
        return made

    def _effect(
        self,
        request: Request,
        kind: str,
        target: str,
        form: dict[str, str],
        detail: dict[str, str],
        *,
        changed: bool = True,
    ) -> None:
        key = request.headers.get("idempotency-key", "")
        self._record.effect(
            request, provider=PROVIDER, kind=kind, target=target, key=key, changed=changed, params=form, detail=detail
        )


def _need(form: dict[str, str], required: set[str], optional: frozenset[str] | set[str]) -> None:
    """Raises `_Invalid` for a parameter that is missing, empty or unknown: Stripe refuses those before it begins."""
    for name in sorted(required):
        if name not in form:
            raise _Invalid(name, "parameter_missing")
    for name, value in form.items():
        if name not in required | optional and not name.startswith("metadata["):
            raise _Invalid(name, "parameter_unknown")
        if not value:
            raise _Invalid(name)


def _metadata(form: dict[str, str]) -> dict[str, str]:
    return {name[9:-1]: value for name, value in form.items() if name.startswith("metadata[") and name.endswith("]")}
