"""One local stack for the whole end-to-end tier, on ports of its own, and what a test needs to send, look and break."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ops.demo.stage import Stage
from ops.demo.story import Story
from ops.drills.receiver import Receiver, listening, on_call_by
from ops.expectation import balance
from ops.function_logs import logged_by, texts_of
from ops.local import LocalStack
from ops.stack import STACK_FILE_VARIABLE
from ops.traffic import Answer

PATIENCE_SECONDS = 120.0
FUNCTIONS = (
    "IngressFunction",
    "WorkerFunction",
    "TriageFunction",
    "SweeperFunction",
    "EvaluatorFunction",
    "ReplayFunction",
    "OperatorApiFunction",
    "PagerFunction",
    "SyntheticFunction",
)


@pytest.fixture(scope="session")
def local_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The synthesized app on the emulator, IAM enforced, with simulated providers; ended with the session."""
    with LocalStack.start(Path(tmp_path_factory.mktemp("stack"))) as running:
        yield running


@pytest.fixture(scope="session")
def receiver(local_stack: LocalStack) -> Iterator[Receiver]:
    """A chat and a pager that whoever is on call has from the beginning: channels are read once a minute."""
    with listening() as made, on_call_by(local_stack.stack, made):
        yield made


class World(Stage):
    """The stack as one test sees it: conversations of its own, faults that end with the test."""

    def await_settled(self, conversations: list[str], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until every one is settled and nothing of it is open. Fails saying what was missing."""
        self.eventually(self.unsettled(conversations), seconds)

    def eventually(self, what_is_missing: Callable[[], str], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until nothing is missing. Fails with what is."""
        deadline = time.monotonic() + seconds
        while missing := what_is_missing():
            if time.monotonic() > deadline:
                pytest.fail(f"after {seconds:.0f} s: {missing}{self.denials()}")
            time.sleep(0.5)

    def problems_in(self, conversations: list[str]) -> list[str]:
        """Everything about these conversations that is not as expected: missing, wrong, doubled."""
        wanted = set(conversations)
        effects = [effect for effect in self.simulator.effects("helpdesk") if effect.target in wanted]
        return balance({one: self.expectations[one] for one in conversations}, effects).problems

    def log_of(self, function_output: str) -> str:
        """Everything the function has logged."""
        return "\n".join(texts_of(self.stack, function_output))

    def line_of(self, answer: Answer) -> dict[str, Any]:
        """What ingress has logged of the request with this answer."""
        for line in logged_by(self.stack, "IngressFunction"):
            if line.get("request_id") == answer.request_id:
                return line
        pytest.fail(f"ingress has logged nothing of the request {answer.request_id}")

    def logged_under(self, function_output: str, request_id: str) -> list[dict[str, Any]]:
        """What the function has logged under that request id, waited for until there is something."""
        found: list[dict[str, Any]] = []

        def missing() -> str:
            lines = logged_by(self.stack, function_output)
            found.extend(line for line in lines if line.get("request_id") == request_id)
            return "" if found else f"{function_output} has logged nothing of the request {request_id}"

        self.eventually(missing, seconds=30)
        return found

    def denials(self) -> str:
        """Which functions were denied something, and the first line that says what: a missing grant names itself."""
        found = []
        for function in FUNCTIONS:
            lines = [line for line in self.log_of(function).splitlines() if "AccessDenied" in line]
            found += [f"\n{function}: {len(lines)} × AccessDenied, first: {lines[0][:400]}"] if lines else []
        return "".join(found)

    def role_of(self, function_output: str) -> str:
        """Name of the role the function runs under."""
        function = self.stack.output(function_output)
        arn = self.stack.client("lambda").get_function(FunctionName=function)["Configuration"]["Role"]
        return str(arn).rpartition("/")[2]

    def policies_of(self, role: str) -> dict[str, dict[str, Any]]:
        """The role's own policies by name."""
        iam = self.stack.client("iam")
        names = iam.list_role_policies(RoleName=role)["PolicyNames"]
        return {name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names}


@pytest.fixture
def world(
    local_stack: LocalStack,
    receiver: Receiver,  # from the beginning
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """The stack with no fault in force, before and after. The command line finds this stack and no other."""
    monkeypatch.setenv(STACK_FILE_VARIABLE, local_stack.stack.state_file)
    monkeypatch.delenv("HOLDFAST_STAGE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    local_stack.simulator.clear_faults()
    yield World(local_stack, Story(Console(quiet=True)), seed=7)
    local_stack.simulator.clear_faults()
