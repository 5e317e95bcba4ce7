"""Processes of a test network: started once, ended for good, and never somebody else's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from milon.chain.genesis import compute_genesis_hash
from milon.client.waiting import wait_until
from milon.node.folder import NodeFolder
from milon.node.testnet_files import load_genesis, load_testnet
from milon_cli.processes import find_process, kill_node, pid_file, stop_nodes
from tests.cli.conftest import Milon

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def _start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def folder(tmp_path: Path) -> NodeFolder:
    found = NodeFolder(tmp_path / "node")
    found.make()
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_process_that_took_over_the_number_is_left_alone(folder: NodeFolder) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        pid_file(folder).write_text(f"{stranger.pid} 1\n")
        assert find_process(folder) is None
        assert not kill_node(folder)
        assert stop_nodes([folder], grace_s=0.0) == ()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_one_that_does_not_listen_is_killed_with_its_workers(folder: NodeFolder) -> None:
    stubborn = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    assert stubborn.stdout is not None
    worker = int(stubborn.stdout.readline())
    pid_file(folder).write_text(f"{stubborn.pid} {_start_time(stubborn.pid)}\n")
    began = time.monotonic()
    assert stop_nodes([folder], grace_s=0.3) == (0,)
    assert time.monotonic() - began < 5.0
    assert wait_until(lambda: not _is_alive(worker), 5.0)
    assert find_process(folder) is None
    assert not pid_file(folder).exists()
    stubborn.stdout.close()


def test_a_folder_without_a_process_has_none(folder: NodeFolder) -> None:
    assert find_process(folder) is None
    for text in ("", "x y", "12", "-5 1"):
        pid_file(folder).write_text(text)
        assert find_process(folder) is None
    assert stop_nodes([folder]) == ()


def test_a_network_goes_up_and_down_and_stays_the_same_chain(milon: Milon, tmp_path: Path) -> None:
    root = tmp_path / "net"
    first = milon("testnet", "up", "--nodes", 1, "--dir", root, "--block-time-ms", 50, "--json")
    assert first.code == 0, first.err
    try:
        pid = first.json["nodes"][0]["pid"]
        assert milon("testnet", "up", "--dir", root, "--json").json["nodes"][0]["pid"] == pid
        node = root / "node0"
        assert wait_until(lambda: milon("status", "--node", node, "--json").json["height"] > 2, 30.0)
        block = milon("block", "show", 2, "--node", node, "--json").json["hash"]
        folder = load_testnet(root).nodes[0]
        assert kill_node(folder)
        assert wait_until(lambda: find_process(folder) is None, 5.0)
        assert milon("testnet", "status", "--dir", root).code == 1
        assert milon("status", "--node", node).code == 4
        again = milon("testnet", "up", "--dir", root, "--json")
        assert again.json["nodes"][0]["pid"] != pid
        assert again.json["genesis_hash"] == compute_genesis_hash(load_genesis(root / "genesis.cbor")).hex()
        assert milon("block", "show", 2, "--node", node, "--json").json["hash"] == block
        assert "milon" in milon("testnet", "logs", 0, "--dir", root).out
    finally:
        down = milon("testnet", "down", "--dir", root, "--json")
    assert down.json == {"ended": 1, "killed": []}
    assert milon("testnet", "down", "--dir", root, "--json").json == {"ended": 0, "killed": []}


def test_a_network_that_cannot_start_leaves_no_process_and_says_why(milon: Milon, tmp_path: Path) -> None:
    root = tmp_path / "net"
    files = milon("testnet", "files", "--host", "127.0.0.1", "--host", "127.0.0.1", "--dir", root, "--json")
    assert files.code == 0
    (root / "node1" / "config.toml").write_text("role = 'miner'\n")
    told = milon("testnet", "up", "--dir", root)
    assert told.code == 2
    assert "it may be validator, trainer, full" in told.err
    assert all(find_process(folder) is None for folder in load_testnet(root).nodes)


def test_testnet_refuses_what_is_not_there(milon: Milon, tmp_path: Path) -> None:
    for words in (("down",), ("status",), ("logs",)):
        assert milon("testnet", *words, "--dir", tmp_path / "none").code == 2
    for adversary in ("x", "9=noise", "=noise", "1="):
        told = milon("testnet", "up", "--nodes", 2, "--dir", tmp_path / "none", "--adversary", adversary)
        assert told.code == 2
    assert os.listdir(tmp_path) == []


def test_ctrl_c_while_waiting_ends_what_was_started(tmp_path: Path) -> None:
    root = tmp_path / "net"
    files = [sys.executable, "-m", "milon_cli", "testnet", "files", "--dir", str(root)]
    subprocess.run([*files, "--host", "127.0.0.1", "--host", "127.0.0.2"], check=True, capture_output=True)
    (root / "node1" / "config.toml").write_text((root / "node0" / "config.toml").read_text())  # two that cannot meet
    command = [sys.executable, "-m", "milon_cli", "testnet", "up", "--dir", str(root)]
    up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    nodes = load_testnet(root).nodes
    assert wait_until(lambda: find_process(nodes[0]) is not None, 20.0)
    assert wait_until(lambda: pid_file(nodes[1]).exists(), 20.0)
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=30)
    # The second node may find its port taken and end the command before the interrupt, which then hits its very end.
    assert up.returncode in (2, 130, -signal.SIGINT)
    assert all(find_process(folder) is None for folder in nodes)


def test_ctrl_c_ends_the_demonstration_with_all_its_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "milon_cli", "demo", "--nodes", "2", "--dir", str(tmp_path), "--no-screen"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    assert "started 2 of 2 nodes" in demo.stdout.readline()
    nodes = load_testnet(tmp_path / "net").nodes
    assert all(find_process(folder) is not None for folder in nodes)
    demo.send_signal(signal.SIGINT)
    _, told = demo.communicate(timeout=60)
    assert demo.returncode == 130, told
    assert f"{tmp_path}/net/node*/node.log" in told
    assert all(find_process(folder) is None for folder in nodes)
