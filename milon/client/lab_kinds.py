"""The attacks of the lab, listed for people; loads torch."""

from __future__ import annotations

from milon.gpu.attacks_kinds import ATTACKS


def list_kinds() -> list[tuple[str, str, str, str]]:
    """Name, what the attacker knows, the strength it has by default, and where it is from."""
    knows = {"own": "its own update", "crowd": "the honest updates", "rule": "these, and the rule"}
    return [
        (kind.name, knows[kind.needs], f"{kind.factor:g}" if kind.factor else "-", kind.source)
        for kind in ATTACKS.values()
    ]
