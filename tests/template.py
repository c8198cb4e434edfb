"""The template of a stage, for tests: of the infrastructure, and of code that needs the deployed tables' shape.

Synthesized in process, with a line of code in place of bundles, once per stage and test process.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aws_cdk import App, Stack
from aws_cdk import aws_lambda as lambda_

from infra.config import STAGES, StageConfig
from infra.stack import HoldfastStack

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Template:
    """A synthesized stage: its CloudFormation template, and the stack it came from."""

    config: StageConfig
    stack: Stack
    body: dict[str, Any]

    def of_type(self, resource_type: str) -> dict[str, Resource]:
        """Resources of that type by logical id."""
        return {key: value for key, value in self.body["Resources"].items() if value["Type"] == resource_type}

    def output(self, key: str) -> Any:
        """The value of an output, as the template writes it."""
        return self.body["Outputs"][key]["Value"]

    def tables(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Per table the key of its output (`LedgerTable`) and its properties."""
        for key, output in self.body["Outputs"].items():
            if key.endswith("Table"):
                yield key, self.body["Resources"][output["Value"]["Ref"]]["Properties"]


def new_stack(config: StageConfig, *, outdir: str | None = None) -> HoldfastStack:
    """The stack of a stage, not synthesized yet."""
    context = json.loads((Path(__file__).parent.parent / "cdk.json").read_text())["context"]
    return HoldfastStack(
        App(context=context, outdir=outdir),
        config=config,
        code_for=lambda name: lambda_.Code.from_inline(f"# the bundle of {name}"),
    )


@cache
def template_of(stage: str) -> Template:
    """The template of the stage of that name."""
    with tempfile.TemporaryDirectory() as outdir:
        stack = new_stack(STAGES[stage], outdir=outdir)
        app = stack.node.root
        assert isinstance(app, App)
        body = app.synth().get_stack_by_name(stack.stack_name).template
    return Template(config=STAGES[stage], stack=stack, body=body)


def create_tables(client: Any, stage: str = "dev") -> Mapping[str, str]:
    """Create the stage's tables through a DynamoDB client, as CloudFormation would, and name them by their outputs."""
    names: dict[str, str] = {}
    for key, properties in template_of(stage).tables():
        request = {
            name: value
            for name, value in properties.items()
            if name in ("AttributeDefinitions", "BillingMode", "GlobalSecondaryIndexes", "KeySchema")
        }
        client.create_table(TableName=key, **request)
        client.update_time_to_live(
            TableName=key,
            TimeToLiveSpecification={
                "Enabled": True,
                "AttributeName": properties["TimeToLiveSpecification"]["AttributeName"],
            },
        )
        names[key] = key
    return names
