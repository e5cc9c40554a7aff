"""A recipe function that kills its process once."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def kill_once(item: object, value: object, field: object, dicom: object) -> str:
    """Kill the process unless the file named by DEADLY_MARKER exists, which is created first."""
    try:
        Path(os.environ["DEADLY_MARKER"]).touch(exist_ok=False)
    except FileExistsError:
        return "ANONYMOUS"
    os.kill(os.getpid(), signal.SIGKILL)
    return ""
