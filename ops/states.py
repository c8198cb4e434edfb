"""`docs/states.md`: the state machines of core, made from the tables that the code obeys.

python -m ops.states
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from functions.core.gate import RULES, Expire, Park, Rule, Suppress
from functions.core.health import HEALTH
from functions.core.incident import INCIDENT
from functions.core.ledger import ACTION, EVENT
from functions.core.limiter import LIMITER
from functions.core.machine import Machine, Step
from functions.core.recovery import ROW
from functions.core.replay_job import JOB

PATH = Path(__file__).resolve().parent.parent / "docs" / "states.md"
MACHINES: tuple[Machine, ...] = (EVENT, ACTION, ROW, HEALTH, LIMITER, JOB, INCIDENT)

_HEAD = """# States

What each thing that Holdfast keeps can be, what can happen to it, and what that makes of it. Made by
`python -m ops.states` from the tables in `functions/core`, which the code itself asks before it builds a transition:
what is not in a table raises `IllegalTransition`. `(none)` is what is not stored yet. The last table, the gate, has no
states: it is the order in which its rules are asked.
"""
_GATE = """## Gate

What is asked of an action right before each send, on every path: first pass, retry, takeover, replay. The first rule
that holds has the word, so the order counts.

- **expires**: its row is `failed` with `EXPIRED`, and nothing sends it any more.
- **suppressed**: not sent by the machine, whatever changes; its row waits for a person, its stand-in runs.
- **waits**: as a row that is `pending`, or stays what it was; for a slot that is near, with its event in the queue. No
  attempt is spent.
"""
_BECOMES = {Expire: "expires", Suppress: "suppressed", Park: "waits"}


def text() -> str:
    """The page as it is checked in."""
    return "\n".join([_HEAD, *(_section(machine) for machine in MACHINES), _gate(RULES)])


def _section(machine: Machine) -> str:
    rows = [f"| {' | '.join(cells)} |" for cells in _cells(machine.steps)]
    head = ["| in | happens | then | what is written |", "|---|---|---|---|"]
    return "\n".join([f"## {machine.name.capitalize()}", "", machine.about, "", *head, *rows, ""])


def _cells(steps: Iterable[Step]) -> list[tuple[str, str, str, str]]:
    """Lines that differ only in where they begin stand together."""
    together: dict[tuple[str, str, str], list[str]] = {}
    for step in steps:
        stays = step.state == step.next
        together.setdefault((step.event, "" if stays else step.next, step.what), []).append(step.state)
    return [
        (", ".join(f"`{state}`" for state in states), event, f"`{then}`" if then else "the same", what)
        for (event, then, what), states in together.items()
    ]


def _gate(rules: Sequence[Rule]) -> str:
    head = ["| | asked of | holds if | the action | waits for | is looked at again |", "|---|---|---|---|---|---|"]
    rows = [f"| {place} | {' | '.join(_told(rule))} |" for place, rule in enumerate(rules, 1)]
    sent = f"| {len(rules) + 1} | every action | none of these holds | is sent |  |  |"
    return "\n".join([_GATE, *head, *rows, sent, ""])


def _told(rule: Rule) -> tuple[str, str, str, str, str]:
    waits = f"`{rule.outcome.waiting_for}`" if rule.outcome.waiting_for else ""
    return rule.asked, rule.what, _BECOMES[rule.outcome.kind], waits, rule.outcome.again or ""


def main() -> None:
    """Write the page where it is checked in."""
    PATH.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
