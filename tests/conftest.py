"""How several workers share the tests."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.scheduler.protocol import Scheduling

# Tests that start networks wait more than they compute: two chains of them run beside everything else. The first shares
# one network (see tests/system/conftest.py); the second has all tests whose networks are their own.
SHARING = tuple(f"tests/system/test_{name}.py" for name in ("down_up", "hostile", "kill", "persist", "resume"))
ALONE = tuple(f"tests/system/test_{name}.py" for name in ("demo", "manifest", "verify_block"))
# Tests of compiled loops: on a fresh checkout whoever runs one compiles, so only one worker runs them.
COMPILING = tuple(
    f"tests/gpu/test_{name}.py"
    for name in ("aggregate_fast", "chains", "digests", "fast", "fast_products", "fast_windows")
)
CHAINS = (SHARING, ALONE, COMPILING)


class Chains(LoadScopeScheduling):
    """Each chain of tests runs on one worker, in order, and from the start; all others go to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((chain[0] for chain in CHAINS if file in chain), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """In place of the modes of `--dist`: `loadgroup` of the locked versions forms no groups."""
    return Chains(config, log)
