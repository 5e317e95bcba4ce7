"""Milon trains PyTorch models on machines that do not trust each other, and proves the result."""

from typing import TYPE_CHECKING, Any

from milon.version import VERSION

if TYPE_CHECKING:
    from milon.client.job import Job

__version__ = VERSION
__all__ = ["Job"]


def __getattr__(name: str) -> Any:
    """Load `milon.Job` on first use, so that importing a room never pulls torch in."""
    if name == "Job":
        from milon.client.job import Job

        return Job
    raise AttributeError(f"module 'milon' has no attribute {name!r}")
