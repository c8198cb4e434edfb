"""`python -m ops.demo`: starts a stack of its own, tells the story, ends it. Exit code 1 if a scene does not hold."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from ops.demo import scenes
from ops.demo.stage import Stage
from ops.demo.story import Story
from ops.local import LocalStack, LocalStackFailed

SCENES = {
    "a": scenes.burst,
    "b": scenes.llm_trouble,
    "c": scenes.helpdesk_stumbles,
    "d": scenes.helpdesk_down,
    "e": scenes.poison,
    "f": scenes.kill_switch,
    "g": scenes.books,
}


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m ops.demo", description="Holdfast, shown on this machine.")
    parser.add_argument("--scenes", default="".join(SCENES), help="which scenes to play, such as 'adg'; (g) sums up")
    parser.add_argument("--seed", type=int, default=1, help="of who writes what, and which ones are repeated or forged")
    options = parser.parse_args(argv)
    if not options.scenes or set(options.scenes) - set(SCENES):
        parser.error(f"scenes are {', '.join(SCENES)}")
    console = Console(highlight=False)
    story = Story(console)
    began = time.monotonic()
    console.rule("[bold]Holdfast: nothing fails silently[/bold]")
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as directory:
        try:
            running = LocalStack.start(Path(directory), announce=story.tell)
        except LocalStackFailed as exc:
            console.print("[red]The local stack did not come up.[/red]")
            console.print(str(exc), markup=False)
            return 1
        with running:
            story.tell(
                f"the stack is up after {time.monotonic() - began:.0f} s, IAM enforced, nothing leaves this machine"
            )
            stage = Stage(running, story, options.seed)
            scenes.warm_up(stage)
            console.print()
            for letter in options.scenes:
                SCENES[letter](stage)
    holds = story.verdict()
    sent = stage.sent
    console.print(
        f"\nsent {sent.posted}, accepted {len(sent.accepted)}, repeats {sent.repeats}, forged {sent.forged} "
        f"(accepted {len(sent.forged_accepted)}); {time.monotonic() - began:.0f} s in all"
    )
    console.print(
        "[bold green]Every promise held.[/bold green]" if holds else "[bold red]A promise was broken.[/bold red]"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
