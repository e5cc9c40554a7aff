"""The state file of a sandbox: secrets, ports and server processes."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dicom_deid.sandbox.process import ProcessIdentity


@dataclass
class ServerState:
    """Ports and process of one server; no process if it was stopped."""

    ports: list[int] = field(default_factory=list)
    process: ProcessIdentity | None = None

    def is_running(self) -> bool:
        """Return whether the process is running."""
        return self.process is not None and self.process.is_running()


@dataclass
class SandboxState:
    """Content of the state file, which only its owner can read."""

    access_key: str = field(default_factory=lambda: secrets.token_hex(10))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    s3: ServerState = field(default_factory=ServerState)
    postgres: ServerState = field(default_factory=ServerState)

    @classmethod
    def load(cls, path: Path) -> SandboxState | None:
        """Read the state; return None if the file is missing or invalid."""
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
