"""The files of a test network."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.units import TimeMs
from milon.chain.genesis import compute_genesis_hash, validators_of
from milon.node.config import load_config
from milon.node.keys import load_key, load_token
from milon.node.ports import find_free_ports
from milon.node.testnet_files import Place, TestnetPlan, load_genesis, load_testnet, make_testnet
from milon.p2p.identity import compute_peer_id, peer_id_of


def _plan(nodes: int = 3, host: str = "127.0.0.1", adversaries: dict[int, str] | None = None) -> TestnetPlan:
    places = tuple(Place(host, 4_001 + index, 5_001 + index) for index in range(nodes))
    return TestnetPlan("test-1", TimeMs(5), places, adversaries=adversaries or {})


def test_every_node_has_keys_settings_and_the_same_genesis(tmp_path: Path) -> None:
    testnet = make_testnet(tmp_path / "net", _plan(adversaries={2: "sign-flip"}))
    assert load_testnet(tmp_path / "net") == testnet
    genesis = load_genesis(testnet.genesis)
    validators = [entry.account for entry in validators_of(genesis)]
    assert len(testnet.nodes) == 3
    for index, folder in enumerate(testnet.nodes):
        config = load_config(folder)
        assert load_key(folder.validator_key).account in validators
        assert load_token(folder)
        assert load_genesis(folder.genesis) == genesis
        assert config.genesis_hash == compute_genesis_hash(genesis).hex()
        assert (config.listen_port, config.api_port) == (4_001 + index, 5_001 + index)
        assert config.adversary == ("sign-flip" if index == 2 else "")
        own = compute_peer_id(load_key(folder.network_key).account)
        assert len(config.bootstrap) == 2
        assert own not in [peer_id_of(address) for address in config.bootstrap]


def test_the_submitter_has_coins_and_no_vote(tmp_path: Path) -> None:
    testnet = make_testnet(tmp_path / "net", _plan())
    account = load_key(testnet.submitter_key).account
    entry = next(entry for entry in load_genesis(testnet.genesis).accounts if entry.account == account)
    assert entry.balance == 1_000_000_000
    assert not entry.is_validator


def test_nodes_on_hosts_of_their_own_listen_everywhere_and_start_by_script(tmp_path: Path) -> None:
    testnet = make_testnet(tmp_path / "net", _plan(host="10.0.0.7"))
    config = load_config(testnet.nodes[0])
    assert (config.listen_host, config.announce_host) == ("0.0.0.0", "10.0.0.7")
    assert config.bootstrap[0].startswith("/ip4/10.0.0.7/tcp/4002/p2p/")
    script = testnet.nodes[0].root / "start.sh"
    (tmp_path / "milon").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "milon").chmod(0o755)
    told = subprocess.run(
        [str(script), "--threads", "2"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == f"join --data {script.parent} --threads 2\n"


def test_a_folder_with_something_in_it_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "mine").write_text("x")
    with pytest.raises(Rejected) as refusal:
        make_testnet(tmp_path / "net", _plan())
    assert refusal.value.reason is Reason.DUPLICATE
    assert os.listdir(tmp_path / "net") == ["mine"]
    assert os.listdir(tmp_path) == ["net"]


def test_a_plan_that_cannot_be_leaves_nothing(tmp_path: Path) -> None:
    for plan in (_plan(0), _plan(65), _plan(adversaries={3: "noise"})):
        with pytest.raises(Rejected):
            make_testnet(tmp_path / "net", plan)
    with pytest.raises(Rejected):
        load_testnet(tmp_path / "net")
    assert os.listdir(tmp_path) == []


def test_free_ports_are_different_and_can_be_bound() -> None:
    ports = find_free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
