"""The flows by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from functions.core.catalog import Catalog
from functions.core.synthetic import FLOW
from functions.flows.flow import Flow
from functions.flows.support import Support
from functions.flows.synthetic import Synthetic

FLOWS: Final[Mapping[str, Callable[[Catalog], Flow]]] = MappingProxyType(
    {"support": lambda catalog: Support(catalog.flows["support"]), FLOW: lambda _: Synthetic()}
)


def flows_of(catalog: Catalog) -> Mapping[str, Flow]:
    """Every flow, set up as the catalog says. A source that names another has none: `KeyError`."""
    return MappingProxyType({name: build(catalog) for name, build in FLOWS.items()})
