"""How the demo is told: scenes with a verdict each, and checks whose figures can be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

_SHOWN = 6


@dataclass(slots=True)
class Scene:
    """One scene: its checks, and how long it took."""

    letter: str
    title: str
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    checks: list[tuple[bool, str]] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether it made at least one check, and all of them came out right."""
        return bool(self.checks) and all(holds for holds, _ in self.checks)


class Story:
    """Tells the scenes as they happen and keeps their verdicts."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.scenes: list[Scene] = []

    def open(self, letter: str, title: str, about: str) -> Scene:
        """Begin a scene."""
        scene = Scene(letter, title)
        self.scenes.append(scene)
        self._console.print(
            Panel(escape(about), title=f"[bold]({letter}) {escape(title)}[/bold]", title_align="left", expand=False)
        )
        return scene

    def close(self, scene: Scene) -> None:
        """End a scene with its verdict."""
        scene.seconds = time.monotonic() - scene.began
        verdict = "[bold green]holds[/bold green]" if scene.holds else "[bold red]does not hold[/bold red]"
        self._console.print(f"  → scene ({scene.letter}) {verdict}, {scene.seconds:.0f} s\n")

    def tell(self, text: str) -> None:
        """One line of what happens."""
        self._console.print(f"  [dim]·[/dim] {escape(text)}")

    def check(self, scene: Scene, text: str, *, holds: bool, details: Sequence[str] = ()) -> None:
        """One claim. `details` are shown where it does not hold."""
        scene.checks.append((holds, text))
        self._console.print(f"  {'[green]✓[/green]' if holds else '[red]✗[/red]'} {escape(text)}")
        if not holds:
            for detail in details[:_SHOWN]:
                self._console.print(f"      [red]{escape(detail)}[/red]")
            if len(details) > _SHOWN:
                self._console.print(f"      [red]and {len(details) - _SHOWN} more[/red]")

    def wait(self, what: str, is_there: Callable[[], str], *, seconds: float, every: float = 0.7) -> bool:
        """Ask until it is there or the time is over. `is_there` gives what is still missing, empty when it is there."""
        began, left = time.monotonic(), "?"
        with self._console.status(escape(what)) as status:
            while time.monotonic() - began < seconds:
                left = is_there()
                if not left:
                    self.tell(f"{what}: done after {time.monotonic() - began:.0f} s")
                    return True
                status.update(escape(f"{what} ({left})"))
                time.sleep(every)
        self.tell(f"{what}: not within {seconds:.0f} s ({left})")
        return False

    def verdict(self) -> bool:
        """Sum up; True if every scene holds."""
        table = Table(title="What was shown", title_justify="left", box=None, pad_edge=False)
        for column in ("", "scene", "checks", "seconds"):
            table.add_column(column)
        for scene in self.scenes:
            right = sum(holds for holds, _ in scene.checks)
            table.add_row(
                "[green]✓[/green]" if scene.holds else "[red]✗[/red]",
                f"({scene.letter}) {escape(scene.title)}",
                f"{right}/{len(scene.checks)}",
                f"{scene.seconds:.0f}",
            )
        self._console.print(table)
        return bool(self.scenes) and all(scene.holds for scene in self.scenes)
