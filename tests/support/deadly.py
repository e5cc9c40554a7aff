"""Recipe functions that kill their process."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any


def kill_once(item: object, value: object, field: object, dicom: object) -> str:
    """Kill the process unless the file named by DEADLY_MARKER exists, which is created first."""
    try:
        Path(os.environ["DEADLY_MARKER"]).touch(exist_ok=False)
    except FileExistsError:
        return "ANONYMOUS"
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def kill_at_station(item: object, value: object, field: Any, dicom: object) -> str:
    """Kill the process if the element has the value that DEADLY_STATION names."""
    if str(field.element.value) == os.environ["DEADLY_STATION"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return "ANONYMOUS"
