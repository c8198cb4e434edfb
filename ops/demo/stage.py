"""What the scenes share: the running stack, everything that was sent, and what ought to come of it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from functions.core.decision import COUNTED
from functions.core.recovery import Status
from ops import records
from ops.demo.story import Story
from ops.expectation import Expected, Topic, expected
from ops.local import LocalStack
from ops.records import Item
from ops.traffic import Answer, Delivery, Sender, post_all

SOURCES = ("helpdesk", "stripe", "github", "shopify", "slack", "twilio", "standard", "svix", "internal")
CUSTOMERS = 40
OPEN = frozenset({Status.PENDING.value, Status.RETRYING.value})
TRIES = 8


@dataclass(slots=True)
class Sent:
    """The sender's own books."""

    posted: int = 0
    answered_again: int = 0
    accepted: dict[str, Answer] = field(default_factory=dict)
    repeats: int = 0
    repeats_accepted: int = 0
    forged: int = 0
    forged_accepted: list[str] = field(default_factory=list)
    lost_at_the_door: list[str] = field(default_factory=list)


class Stage:
    """The stack under demonstration."""

    def __init__(self, running: LocalStack, story: Story, seed: int) -> None:
        self.running = running
        self.stack = running.stack
        self.simulator = running.simulator
        self.story = story
        self.sender = Sender(running.stack)
        self.chance = random.Random(seed)  # noqa: S311  # a demo that can be repeated, no secret
        self.sent = Sent()
        self.expectations: dict[str, Expected] = {}
        self.kill_switch_turns: list[str] = []

    # ------------------------------------------------------------------------------------------------------- sending

    def letters(self, scene: str, topics: Sequence[Topic], count: int) -> list[tuple[Delivery, Topic]]:
        """`count` messages, each in a conversation of its own, over all sources and topics in turn."""
        made = []
        for number in range(count):
            topic = topics[number % len(topics)]
            delivery = self.sender.message(
                SOURCES[(number // len(topics) + number) % len(SOURCES)],
                ticket=f"demo-{scene}-{number}",
                text=topic.text,
                author=f"customer{self.chance.randrange(CUSTOMERS)}@example.com",
                message_id=f"msg_{scene}_{number}",
            )
            made.append((delivery, topic))
        return made

    def post(self, deliveries: Sequence[Delivery], *, concurrency: int = 8) -> list[Answer]:
        """Send, and enter what was answered into the books."""
        answers = post_all(deliveries, concurrency=concurrency, tries=TRIES)
        books = self.sent
        for answer in answers:
            delivery = answer.delivery
            books.posted += 1
            books.answered_again += answer.tries - 1
            is_accepted = 200 <= answer.status < 300
            if delivery.honesty != "honest":
                books.forged += 1
                if is_accepted:
                    books.forged_accepted.append(f"{delivery.source}: {delivery.honesty} was answered {answer.status}")
            elif delivery.repeats:
                books.repeats += 1
                books.repeats_accepted += is_accepted
                if is_accepted:  # a promise, also where the first copy was never acknowledged
                    books.accepted.setdefault(conversation_of(delivery), answer)
            elif is_accepted:
                books.accepted[conversation_of(delivery)] = answer
            else:
                books.lost_at_the_door.append(f"{delivery.source} {delivery.message_id}: {answer.status}")
        return answers

    def expect(
        self,
        letters: Iterable[tuple[Delivery, Topic]],
        *,
        is_llm_up: bool = True,
        may_be_late: bool = True,
        may_be_held_back: bool = False,
    ) -> list[str]:
        """Enter what ought to come of these letters; gives their conversations."""
        conversations = []
        for delivery, topic in letters:
            conversation = conversation_of(delivery)
            self.expectations[conversation] = expected(
                topic, is_llm_up=is_llm_up, may_be_late=may_be_late, may_be_held_back=may_be_held_back
            )
            conversations.append(conversation)
        return conversations

    # ------------------------------------------------------------------------------------------------------- looking

    def ledger(self) -> dict[str, Item]:
        """Events of the ledger by the conversation they act on."""
        return {str(item["decision"]["t"]): item for item in records.events(self.stack) if "t" in item["decision"]}

    def unsettled(self, conversations: Iterable[str]) -> Callable[[], str]:
        """What to ask while waiting until each of these is settled with nothing left open. What only counts, later,
        what is done is not waited for.
        """
        wanted = set(conversations)

        def left() -> str:
            with ThreadPoolExecutor(2) as pool:
                ledger_there, rows_there = pool.submit(self.ledger), pool.submit(records.all_rows, self.stack)
            ledger, rows = ledger_there.result(), rows_there.result()
            unsettled = [one for one in wanted if ledger.get(one, {}).get("status") != "settled"]
            ids = {str(ledger[one]["event_id"]) for one in wanted - set(unsettled)}
            waiting = [row for row in rows if row["event_id"] in ids and is_open(row) and not only_counts(row)]
            parts = [f"{len(unsettled)} to settle"] * bool(unsettled) + [f"{len(waiting)} waiting"] * bool(waiting)
            return ", ".join(parts)

        return left

    def rows_of(self, conversations: Iterable[str]) -> list[Item]:
        """Recovery rows of the events of these conversations."""
        ledger = self.ledger()
        ids = {str(ledger[one]["event_id"]) for one in conversations if one in ledger}
        return [row for row in records.all_rows(self.stack) if row["event_id"] in ids]

    def decided_by(self, conversations: Iterable[str]) -> Counter[str]:
        """Who decided these."""
        ledger = self.ledger()
        return Counter(str(ledger[one]["decision"]["c"][2]) for one in conversations if one in ledger)

    def replies_in(self, conversations: Iterable[str]) -> int:
        """How many replies the helpdesk recorded in these."""
        wanted = set(conversations)
        return sum(effect.kind == "reply" and effect.target in wanted for effect in self.simulator.effects("helpdesk"))


def conversation_of(delivery: Delivery) -> str:
    """The conversation a delivery belongs to; one without a readable message stands for itself."""
    return delivery.sample.conversation if delivery.sample is not None else f"?{delivery.message_id}"


def only_counts(row: Item) -> bool:
    """Whether it is to see, a while later, how often what is done was done."""
    action = row.get("action")
    return bool(action) and COUNTED in json.loads(str(action)).get("p", {})


def is_open(row: Item) -> bool:
    """Whether the machine still has something to do with the row."""
    return row["status"] in OPEN or (row["status"] == Status.REPLAYED.value and not row.get("result"))


def what_of(row: Item) -> str:
    """The action's name in its decision, or `event`."""
    action = row.get("action")
    return str(json.loads(action)["n"]) if action else "event"


def repeated(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """The same deliveries, as a provider sends them a second time."""
    return [replace(delivery, repeats=True) for delivery in deliveries]
