"""What is known of a local stack that was started, kept in a file so that another command can find and end it."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ops.local.processes import Process
from ops.stack import DEFAULT_REGION, LOCAL, Stack

FORMAT = 1


class UnreadableState(Exception):
    """The file is no state of a local stack that this version wrote."""


@dataclass(slots=True)
class LocalState:
    """One local stack. `status` is `starting`, `up` or `failed`; `scratch` holds what emulator and functions write."""

    status: str = "starting"
    stage: str = LOCAL
    region: str = DEFAULT_REGION
    endpoint: str = ""
    simulator_url: str = ""
    api_url: str = ""
    scratch: str = ""
    logs: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Replace the file in one step; only its owner may read it."""
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, suffix=".part", delete=False
        ) as part:  # made with mode 0600
            json.dump({"format": FORMAT, **asdict(self)}, part, indent=2)
        os.replace(part.name, path)  # noqa: PTH105  # a name is at hand, not a path

    @staticmethod
    def read(path: Path) -> LocalState:
        """Read it back. Raises `UnreadableState`, or `FileNotFoundError`."""
        try:
            raw = json.loads(path.read_text())
            if raw.pop("format") != FORMAT:
                raise UnreadableState(f"{path} was written by another version")
            processes = [Process(**item) for item in raw.pop("processes")]
            return LocalState(processes=processes, **raw)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise UnreadableState(f"{path} is not the state of a local stack") from exc

    def stack(self, path: Path) -> Stack:
        """As the command line sees it."""
        return Stack(
            stage=self.stage,
            region=self.region,
            outputs=dict(self.outputs),
            endpoint=self.endpoint,
            simulator_url=self.simulator_url,
            state_file=str(path),
        )
