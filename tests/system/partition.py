"""`python -m tests.system.partition`: cables of real nodes are pulled and plugged in again, in namespaces of their own.

Without one of four the others go on; without two nobody does; plugged in again, all have one chain, and nobody was
accused. Skipped, with the reason, where the system allows no namespaces.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from milon.base.units import Count
from milon.chain.params import Parameters
from tests.system.live import list_differences, wait_for
from tests.system.namespaces import CabledLive, cabled_network, find_obstacle

NODES = 4
PARAMETERS = Parameters(block_time_ms=Count(300), delta_ms=Count(300))
STILL_S = 6.0  # many views: whoever goes on alone has time to show it


def _height(live: CabledLive, node: int) -> int:
    status = live.status(node)
    return 0 if status is None else int(status["height"])


def list_faults(live: CabledLive) -> list[str]:
    """Pull and plug, and say what does not hold."""
    faults: list[str] = []
    wait_for("some blocks", lambda: min(_height(live, node) for node in range(NODES)) >= 3)
    live.cables.pull(3)
    wait_for("three go on", lambda: _height(live, 0) >= _height(live, 3) + 8)
    live.cables.plug(3)
    reached = _height(live, 0)
    wait_for("the fourth catches up", lambda: _height(live, 3) >= reached)
    for node in (2, 3):
        live.cables.pull(node)
    began = time.monotonic()
    wait_for("the last messages arrive", lambda: time.monotonic() > began + 2.0)
    before = [_height(live, node) for node in range(NODES)]
    wait_for("time passes", lambda: time.monotonic() > began + 2.0 + STILL_S)
    after = [_height(live, node) for node in range(NODES)]
    if before != after:
        faults.append(f"without a quorum heights went from {before} to {after}")
    for node in (2, 3):
        live.cables.plug(node)
    wait_for("all go on", lambda: min(_height(live, node) for node in range(NODES)) >= max(after) + 4)
    faults += list_differences(live, 1, live.wait_same_tip())
    for account in live.accounts:
        view = live.ask(0, lambda client, account=account: client.validator(account)) or {}
        if view.get("is_tombstoned", True):
            faults.append(f"{account}: {view}")
    return faults


def main() -> int:
    """Run; 1 where anything does not hold."""
    obstacle = find_obstacle()
    if obstacle:
        print(f"skipped: {obstacle}", flush=True)
        return 0
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="milon-partition-") as folder,
        cabled_network(Path(folder) / "net", NODES, PARAMETERS) as live,
    ):
        faults = list_faults(live)
        tip = _height(live, 0)
    print("\n".join(faults) or f"{tip} blocks, one chain, in {time.monotonic() - began:.0f} s", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
