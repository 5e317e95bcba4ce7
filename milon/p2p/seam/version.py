"""The one libp2p that this room's subclasses were written against; another one is refused at start."""

from __future__ import annotations

from importlib.metadata import version

from milon.base.errors import Reason, Rejected

TESTED = "0.8.1"  # the seam overrides methods that are no public interface: each release must be read anew


def check_version() -> None:
    """Raise `Rejected(UNSUPPORTED)` unless the installed libp2p is the tested one."""
    found = version("libp2p")
    if found != TESTED:
        raise Rejected(Reason.UNSUPPORTED, f"libp2p {found} is installed; the network layer is made for {TESTED}")
