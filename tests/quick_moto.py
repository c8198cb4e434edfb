"""Moto without what it works out anew for each request or each test, though it comes out the same every time.

Nothing here changes an answer: `tests/contract/test_quick_moto.py` compares. Each place is one of moto's own and is
reached by its name: were it called otherwise one day, the import would fail, and not quietly become slow again.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from moto.core import models as mocks
from moto.core import responses
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.serialize import AttributePickerContext, XFormedAttributePicker
from moto.dynamodb import models as dynamodb
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.dynamodb.parsing.expressions import UpdateExpressionParser  # type: ignore[attr-defined]  # it is there

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# ------------------------------------------------------------------------------------------------------- each request

_KEYS: dict[tuple[Any, ...], tuple[str, ...]] = {}
_possible_keys = XFormedAttributePicker.get_possible_keys


def _keys_once(self: XFormedAttributePicker, context: AttributePickerContext) -> Iterable[str]:
    """Under which keys an attribute of an answer may be found. That lies in its shape and in the class of what it is
    looked for in, and there are fifty of them in the answer to a GetItem.
    """
    asked = (*self.alias_providers, type(context.obj), context.key, context.shape)
    found = _KEYS.get(asked)
    if found is None:
        found = _KEYS[asked] = tuple(_possible_keys(self, context))
    return found


XFormedAttributePicker.get_possible_keys = _keys_once  # type: ignore[assignment, method-assign]  # a tuple will do
responses.method_names_from_class = cache(responses.method_names_from_class)  # type: ignore[attr-defined]  # imported there
UpdateExpressionParser.make = staticmethod(lru_cache(UpdateExpressionParser.make))  # whoever changes a tree copies it

# --------------------------------------------------------------------------------------------------- each transaction

_TOUCHED = threading.local()
_transact = dynamodb.DynamoDBBackend.transact_write_items


def _transact_and_restore_what_was_touched(self: Any, transact_items: list[dict[str, Any]]) -> None:
    """Of every table that a transaction names, moto first makes a copy down to the last attribute of all its items, to
    put it back if need be; once for each item that it names.
    """
    _TOUCHED.keys = [each["Update"] for each in transact_items if "Update" in each]
    try:
        _transact(self, transact_items)
    finally:
        del _TOUCHED.keys


def _backup(table: Table) -> Table:
    """A copy that keeps what a transaction may change in place: those items that it updates. All others it puts into
    the table, or takes from it, as they are.
    """
    kept = copy.copy(table)
    kept.items = copy.copy(table.items)
    if table.range_key_attr is not None:
        for each, items in table.items.items():
            kept.items[each] = copy.copy(items)
    for update in _TOUCHED.keys:
        if update.get("TableName") == table.name and table.hash_key_attr in update.get("Key", {}):
            touched = DynamoType(update["Key"][table.hash_key_attr])
            if touched in table.items:
                kept.items[touched] = copy.deepcopy(table.items[touched])
    return kept


def _deepcopy(what: Any) -> Any:
    return _backup(what) if isinstance(what, Table) else copy.deepcopy(what)


dynamodb.DynamoDBBackend.transact_write_items = _transact_and_restore_what_was_touched  # type: ignore[method-assign]  # so
dynamodb.copy = SimpleNamespace(deepcopy=_deepcopy)  # type: ignore[assignment, attr-defined]  # of the module

# ----------------------------------------------------------------------------------------------------------- each test

# Each `mock_aws()` makes thousands of patterns for the library `requests`, with which nobody here talks to AWS.
mocks.RESPONSES_METHODS.clear()


@cache
def _made(create: Callable[[DynamoDBClient], None], client: DynamoDBClient, region: str) -> Any:
    create(client)
    return copy.deepcopy(dynamodb_backends[DEFAULT_ACCOUNT_ID][region].tables)


def put_tables(create: Callable[[DynamoDBClient], None], client: DynamoDBClient, region: str) -> None:
    """What `create` makes, which is empty tables: through the client once, and then as copies of those."""
    made = _made(create, client, region)
    dynamodb_backends[DEFAULT_ACCOUNT_ID][region].tables.update(copy.deepcopy(made))
