"""`holdfast replay`."""

from __future__ import annotations

import getpass
import json
from typing import Annotated, Any

import typer

from functions.core.integration import INTAKE
from ops.cli.console import AsJson, ExitCode, Refused, check_integrations, emit, say, show_table, stack_of
from ops.stack import Stack


def replay(
    ctx: typer.Context,
    *,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the audit.")],
    recovery_id: Annotated[list[str] | None, typer.Option("--id", help="These rows; may be repeated.")] = None,
    integration: Annotated[str, typer.Option(help="Rows of this integration.")] = "",
    status: Annotated[str, typer.Option(help="failed or dlq.")] = "",
    failure_code: Annotated[str, typer.Option(help="Rows that failed with this code.")] = "",
    root_cause: Annotated[str, typer.Option(help="Rows with this root cause.")] = "",
    source: Annotated[str, typer.Option(help="Rows of this source's events.")] = "",
    tenant: Annotated[str, typer.Option(help="Rows of this tenant.")] = "",
    flow: Annotated[str, typer.Option(help="Rows of this flow.")] = "",
    event_name: Annotated[str, typer.Option(help="Rows of events of this name.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many.")] = 100,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be replayed, and do nothing.")] = False,
    actor: Annotated[str, typer.Option(help="Who asks; without it, as these credentials say.")] = "",
    as_json: AsJson = False,
) -> None:
    """Give failed and dead rows one more attempt, under their old keys. Exit code 1 if refused, or if none is."""
    stack = stack_of(ctx)
    check_integrations([integration] if integration else [], and_also=[INTAKE])
    chosen = {
        "integration": integration,
        "status": status,
        "failure_code": failure_code,
        "root_cause": root_cause,
        "source": source,
        "tenant": tenant,
        "flow": flow,
        "event_name": event_name,
        "recovery_id": list(recovery_id or []),
    }
    answer = invoke(
        stack,
        {
            "filter": {name: value for name, value in chosen.items() if value},
            "reason": reason,
            "actor": actor or who(stack),
            "limit": limit,
            "dry_run": dry_run,
        },
    )
    if as_json:
        emit(answer)
    else:
        _tell(answer)
    if "error" in answer or not answer.get("replayed"):
        raise typer.Exit(ExitCode.REFUSED)


def invoke(stack: Stack, request: dict[str, Any]) -> dict[str, Any]:
    """Call the replay function. Its refusals are answers; raises `Refused` if it failed."""
    response = stack.client("lambda").invoke(
        FunctionName=stack.output("ReplayFunction"), Payload=json.dumps(request).encode()
    )
    text = response["Payload"].read().decode()
    if response.get("FunctionError"):
        raise Refused(f"the replay function failed: {text[:500]}")
    answer = json.loads(text)
    if not isinstance(answer, dict):
        raise Refused(f"the replay function gave no answer that can be understood: {text[:200]}")
    return answer


def _tell(answer: dict[str, Any]) -> None:
    if "error" in answer:
        error = answer["error"] if isinstance(answer["error"], dict) else {"detail": answer["error"]}
        say(f"refused: {error.get('code', '')} {error.get('message') or error.get('detail') or ''}".rstrip())
        for problem in error.get("problems", []):
            say(f"  {problem.get('field', '?')}: {problem.get('problem', '?')}")
        return
    if answer.get("items"):
        show_table(
            "",
            ("recovery id", "result", "event", "action", "why"),
            [
                (
                    item["recovery_id"],
                    item["result"],
                    item.get("event_id", ""),
                    item.get("action", ""),
                    item.get("reason", ""),
                )
                for item in answer["items"]
            ],
        )
    verb = "would be replayed" if answer.get("dry_run") else "replayed"
    skipped = sum(dict(answer.get("skipped") or {}).values())
    count = sum(item["result"] in ("replayed", "would_replay") for item in answer.get("items", []))
    job = "" if answer.get("dry_run") else f" (job {answer.get('job_id', '')})"
    say(f"{answer.get('matched', 0)} matched, {count} {verb}, {skipped} skipped{job}")
    for recovery_id in answer.get("not_found", []):
        say(f"there is no item {recovery_id} that the filter means")
    if answer.get("truncated"):
        say("there are more than one call looks through: call again, or narrow the filter")
    if count and not answer.get("dry_run"):
        say("what comes of it: holdfast queue --status replayed; what failed again is back under failed or dlq")


def who(stack: Stack) -> str:
    """The caller: on AWS as AWS knows it, locally by login name."""
    if not stack.is_local:
        return str(stack.client("sts").get_caller_identity()["Arn"])
    try:
        return f"local/{getpass.getuser()}"
    except (OSError, KeyError):  # a container may run under a user without a name
        return "local/operator"
