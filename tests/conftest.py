"""How several workers share the tests."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.scheduler.protocol import Scheduling

NETWORKS = "tests/system/"


class OneWorkerForNetworks(LoadScopeScheduling):
    """One worker begins with all tests that start networks, in order; all others go to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        return NETWORKS if nodeid.startswith(NETWORKS) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """In place of the modes of `--dist`: `loadgroup` of the locked versions forms no groups."""
    return OneWorkerForNetworks(config, log)
