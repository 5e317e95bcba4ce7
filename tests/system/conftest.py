"""For every test of the system: SIGTERM ends nodes too, and a failed test shows the ends of their logs."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Generator, Iterator

import pytest

from milon.base.units import Count, TimeMs
from milon.chain.params import Parameters
from milon.node.ports import find_free_ports
from milon.node.testnet_files import Place, TestnetPlan, make_testnet
from tests.system.live import KEPT, Live, end_network, tail_logs

NODES = 4  # the fewest that bear one fault
OPERATIONS_MAX = 10_000_000  # of a training step: enough for the small job, not for the example


@pytest.fixture(scope="session", autouse=True)
def ending_in_order() -> Iterator[None]:
    """A run that is told to stop leaves as with Ctrl-C: through all the places that end processes."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the networks that run to the report of a failure."""
    report = yield
    if report.failed and item.get_closest_marker("system"):
        report.sections += [(f"network in {root}", tail_logs(root)) for root in KEPT if root.exists()]
        load = subprocess.run(["uptime"], capture_output=True, text=True, check=False).stdout
        report.sections.append(("machine", load))
    return report


@pytest.fixture(scope="session")
def honest_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Four honest nodes, shared by several tests: each finds it whole (`up` first) and leaves no job behind."""
    root = tmp_path_factory.mktemp("honest") / "net"
    ports = find_free_ports(2 * NODES)
    places = tuple(Place("127.0.0.1", ports[2 * index], ports[2 * index + 1]) for index in range(NODES))
    parameters = Parameters(
        block_time_ms=Count(500), delta_ms=Count(500), program_operations_max=Count(OPERATIONS_MAX)
    )  # half the usual times: these tests wait for blocks, also for those that the dead do not make
    make_testnet(root, TestnetPlan("honest", TimeMs(time.time_ns() // 1_000_000), places, parameters))
    KEPT.append(root)
    try:
        yield Live(root)
    finally:
        end_network(root)
        KEPT.remove(root)


@pytest.fixture
def network(honest_network: Live) -> Live:
    """The shared network with all its nodes running."""
    honest_network.up()
    return honest_network
