"""The doctor: each thing that can be wrong with a node is found and named, and a sound one is left alone."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from milon.base.units import Epoch, Height, View
from milon.chain.genesis import compute_genesis_hash
from milon.node.clocks import Reading, judge_clock, read_clocks
from milon.node.config import Config, save_config
from milon.node.doctor import check_disk, check_files, check_ports, examine
from milon.node.doctor_network import examine_network, judge_height, judge_signers
from milon.node.findings import Finding
from milon.node.folder import NodeFolder, locked
from milon.node.keys import compute_peer_id_of
from milon.node.moving import export_validator
from milon.node.proofs import prove_newest
from tests.node.chains import grow, make_folder, serve_chain
from tests.node.test_replay import damage, flipped, record_of
from tests.p2p.networks import connect, network_of

LIMITS = (4_096, 4_096)


def by_check(findings: Sequence[Finding]) -> dict[str, Finding]:
    for finding in findings:
        if finding.level != "ok":
            assert finding.cause and finding.consequence and finding.next_step, finding
    return {finding.check: finding for finding in findings}


def sound_folder(root: Path) -> NodeFolder:
    folder = make_folder(grow(), root)
    save_config(folder, Config(disk_free_bytes_min=0))
    return folder


def test_a_sound_node_is_well(tmp_path: Path) -> None:
    folder = sound_folder(tmp_path / "node")
    found = by_check(examine(folder.root, LIMITS))
    assert {finding.level for finding in found.values()} == {"ok"}
    assert set(found) == {"folder", "node", "disk", "files", "ports", "votes", "store"}
    assert "does not run" in found["node"].cause
    with locked(folder):
        assert by_check(examine(folder.root, LIMITS))["node"].cause == "it runs"


def test_a_folder_that_is_none_or_gave_its_validator_away(tmp_path: Path) -> None:
    assert [finding.level for finding in examine(tmp_path / "none", LIMITS)] == ["fail", "ok"]
    folder = sound_folder(tmp_path / "node")
    export_validator(folder, tmp_path / "v.bundle")
    found = by_check(examine(folder.root, LIMITS))["folder"]
    assert found.level == "fail" and "moved away" in found.cause


def test_shared_keys_and_bad_settings(tmp_path: Path) -> None:
    folder = sound_folder(tmp_path / "node")
    folder.validator_key.chmod(0o644)
    assert "chmod 600" in by_check(examine(folder.root, LIMITS))["folder"].next_step
    folder.validator_key.chmod(0o600)
    folder.config.write_text("rolle = 'validator'")
    assert by_check(examine(folder.root, LIMITS))["folder"].level == "fail"


def test_disk_and_file_limits(tmp_path: Path) -> None:
    folder = sound_folder(tmp_path / "node")
    levels = [check_disk(folder, Config(disk_free_bytes_min=least)).level for least in (0, 1 << 50)]
    assert levels == ["ok", "fail"]
    assert [check_files((soft, 4_096)).level for soft in (4_096, 1_000, 64)] == ["ok", "warn", "fail"]
    assert check_files((-1, -1)).level == "ok"


def test_ports_in_use_and_not_answering() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        config = Config(listen_port=port)
        assert check_ports(config, runs=False).level == "fail"
        assert check_ports(config, runs=True).level == "ok"
    assert check_ports(config, runs=True).level == "fail"
    assert check_ports(config, runs=False).level == "ok"
    assert check_ports(Config(), runs=False).level == "ok"


@pytest.mark.parametrize("table", [b"ledger", b"nodes", b"blocks"])
def test_a_damaged_store_is_found(tmp_path: Path, table: bytes) -> None:
    folder = sound_folder(tmp_path / "node")
    key, value = record_of(folder, table)
    damage(folder, table, key, flipped(value))
    found = by_check(examine(folder.root, LIMITS))["store"]
    assert found.level == "fail" and "replay" in found.next_step + found.cause + found.consequence


def test_damaged_votes_are_found_and_a_torn_tail_is_none(tmp_path: Path) -> None:
    folder = sound_folder(tmp_path / "node")
    log = folder.votes / "votes.log"
    log.write_bytes(log.read_bytes() + b"torn")
    assert "4 bytes" in by_check(examine(folder.root, LIMITS))["votes"].cause
    (folder.votes / "votes.signed").write_bytes(bytes(64))
    assert by_check(examine(folder.root, LIMITS))["votes"].level == "fail"


def readings(*offsets: int) -> tuple[Reading, ...]:
    return tuple(Reading(offset, Height(9)) for offset in offsets)


def test_the_clock_is_judged_by_the_middle_peer() -> None:
    assert judge_clock((), 1_000).level == "warn"
    assert judge_clock(readings(10, -20, 10**9), 1_000).level == "ok"  # one liar moves nothing
    assert judge_clock(readings(600, 610, 0), 1_000).level == "warn"
    found = judge_clock(readings(-5_000, -5_001, -4_000), 1_000)
    assert found.level == "fail" and "ahead of" in found.cause
    assert "behind" in judge_clock(readings(5_000), 1_000).cause


def test_a_node_that_is_far_behind() -> None:
    assert judge_height(readings(0), Height(5)).level == "ok"
    assert judge_height((Reading(0, Height(500)),), Height(5)).level == "warn"


async def test_clocks_are_read_from_peers(tmp_path: Path) -> None:
    async with network_of("memory") as network:
        visitor = await network.add("visitor")
        for name in ("one", "two"):
            await connect(visitor, (await serve_chain(network, name, grow(), tmp_path)).transport)
        found = await read_clocks(visitor)
        tip = grow().store.tip()
        assert tip is not None and {reading.height for reading in found} == {tip[0]} and len(found) == 2
        assert judge_clock(found, 1_000).level == "fail"  # their clock stands at 5 ms


def test_a_vote_that_this_folder_did_not_sign_is_noticed() -> None:
    grown = grow()
    newest = prove_newest(grown.genesis, grown.store)
    content = newest.proof.finalization.content
    account = grown.key.account
    above, below = (content.epoch, View(content.view)), (Epoch(0), View(content.view - 1))
    assert judge_signers(newest, account, above, runs=True).level == "ok"
    assert judge_signers(newest, account, below, runs=True).level == "fail"
    assert "do not start" in judge_signers(newest, account, below, runs=False).next_step
    assert judge_signers(newest, grown.genesis.accounts[0].account[:-1] + b"x", below, runs=True).level == "ok"  # type: ignore[arg-type]


async def test_a_network_out_of_reach_is_one_failure(tmp_path: Path) -> None:
    folder = sound_folder(tmp_path / "node")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        port = nobody.getsockname()[1]
    address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{compute_peer_id_of(grow().key)}"
    name = compute_genesis_hash(grow().genesis).hex()
    assert [entry.level for entry in await examine_network(folder)] == ["warn"]
    save_config(folder, Config(genesis_hash=name, disk_free_bytes_min=0))
    assert [entry.level for entry in await examine_network(folder)] == ["warn"]
    save_config(folder, Config(genesis_hash=name, bootstrap=(address,), disk_free_bytes_min=0))
    found = by_check(await examine_network(folder))
    assert [entry.level for entry in found.values()] == ["fail"]
    assert "no bootstrap address answers" in found["peers"].cause
