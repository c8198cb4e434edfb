"""`holdfast env`."""

from __future__ import annotations

import typer

from ops.cli.console import AsJson, emit, show_fields, stack_of


def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Endpoints, queues and tables of the stack. No secrets."""
    stack = stack_of(ctx)
    document = {
        "stage": stack.stage,
        "region": stack.region,
        "api_url": stack.api_url,
        "webhooks_url": f"{stack.api_url}/webhooks/",
        "aws_endpoint_url": stack.endpoint,
        "simulator_url": stack.simulator_url,
        "state_file": stack.state_file,
        **{key: value for key, value in sorted(stack.outputs.items()) if key != "ApiUrl"},
    }
    if as_json:
        emit(document)
    else:
        show_fields(document.items())
