"""What a sandbox remembers of itself between processes: its secrets, ports, and the servers that it started."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dicom_deid.sandbox.process import ProcessIdentity


@dataclass
class ServerState:
    """One server: the ports it had last, and its process when it was started and not stopped."""

    ports: list[int] = field(default_factory=list)
    process: ProcessIdentity | None = None

    def is_running(self) -> bool:
        """Tell whether the process that was started still runs."""
        return self.process is not None and self.process.is_running()


@dataclass
class SandboxState:
    """The content of a sandbox's state file, which its owner alone can read."""

    access_key: str = field(default_factory=lambda: secrets.token_hex(10))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    s3: ServerState = field(default_factory=ServerState)
    postgres: ServerState = field(default_factory=ServerState)

    @classmethod
    def load(cls, path: Path) -> SandboxState | None:
        """Read the state, or return None when there is none, or none that can be read."""
        try:
            values = json.loads(path.read_text())
            s3, postgres = _server(values.pop("s3")), _server(values.pop("postgres"))
            return cls(**values, s3=s3, postgres=postgres)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def save(self, path: Path) -> None:
        """Write the state so that a reader sees the old or the new, never a part."""
        new = path.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file)
        new.replace(path)


def _server(values: dict[str, object]) -> ServerState:
    process, ports = values["process"], values["ports"]
    if not isinstance(ports, list) or not (process is None or isinstance(process, list)):
        raise TypeError("not a server's state")
    return ServerState(ports, None if process is None else ProcessIdentity(*process))
