"""Whether work can run on the device a user names, asked before anything starts and without loading torch here."""

from __future__ import annotations

import subprocess
import sys

from milon.base.errors import Reason, Rejected
from milon.gpu.devices import AUTO, CPU, HELP, verify_name

__all__ = ["AUTO", "CPU", "HELP", "verify_device", "verify_name"]

_SECONDS_MAX = 120.0  # for torch to load and to look at its devices, on a busy machine


def verify_device(wanted: str) -> None:
    """Raise `Rejected`: OUT_OF_RANGE for a name that is none, UNAVAILABLE where that device is not here, and why."""
    verify_name(wanted)
    if wanted in (AUTO, CPU):  # these are always there
        return
    command = [sys.executable, "-m", "milon.gpu.devices", wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        detail = f"looking for {wanted} took more than {_SECONDS_MAX:.0f} s; nothing was started; try --device {CPU}"
        raise Rejected(Reason.UNAVAILABLE, detail) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"looking for {wanted} ended with code {done.returncode}"]
        raise Rejected(Reason.UNAVAILABLE, lines[-1])
