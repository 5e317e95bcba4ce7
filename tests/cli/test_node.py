"""`milon init`, `status`, `peers`, `stop`, and what `join` refuses before a node starts."""

import os
import re
from pathlib import Path

import pytest

from milon.base.codec import encode
from milon.chain.genesis import compute_genesis_hash
from milon.node.config import Config, load_config
from milon.node.folder import NodeFolder
from milon_cli import join as join_module
from milon_cli.node import describe_work
from tests.api.fake_node import ACCOUNTS, GENESIS
from tests.api.serving import Served
from tests.cli.conftest import Milon

ADDRESS = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWTest"
HASH = compute_genesis_hash(GENESIS).hex()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Config]]:
    """What would have been started."""
    found: list[tuple[Path, Config]] = []

    def remember(folder: NodeFolder, config: Config) -> int:
        found.append((folder.root, config))
        return 0

    monkeypatch.setattr(join_module, "_run", remember)
    return found


@pytest.fixture
def genesis_file(tmp_path: Path) -> Path:
    path = tmp_path / "genesis.cbor"
    path.write_bytes(encode(GENESIS))
    return path


@pytest.mark.parametrize(
    ("device", "said"),
    [("cu" + "da:97", r"nothing was started.*--device cpu"), ("teapot", "it may be auto, cpu, ")],
)
def test_join_on_a_device_that_is_not_here_starts_nothing(
    milon: Milon, tmp_path: Path, genesis_file: Path, started: list[tuple[Path, Config]], device: str, said: str
) -> None:
    root = tmp_path / "node"
    ran = milon("join", "--data", root, "--genesis", genesis_file, "--device", device)
    assert ran.code == 2 and re.search(said, ran.err)
    assert not root.exists() and not started


@pytest.mark.parametrize("command", ["testnet up --dir", "testnet files --host 127.0.0.1 --dir", "demo --dir"])
def test_no_command_begins_on_a_device_that_cannot_be(milon: Milon, tmp_path: Path, command: str) -> None:
    root = tmp_path / "net"
    ran = milon(*command.split(), root, "--device", "teapot")
    assert ran.code == 2 and "device 'teapot'; it may be auto, cpu, " in ran.err and not root.exists()


def test_init_makes_a_folder_and_a_second_one_keeps_the_keys(milon: Milon, tmp_path: Path, genesis_file: Path) -> None:
    root = tmp_path / "new"
    first = milon("init", "--data", root, "--genesis", genesis_file, "--role", "trainer", "--json")
    assert first.code == 0
    assert milon("init", "--data", root, "--json").json == first.json
    assert load_config(NodeFolder(root)) == Config(role="trainer", genesis_hash=HASH)
    assert sorted(os.listdir(root / "keys")) == ["network.key", "validator.key"]
    assert (root / "genesis.cbor").read_bytes() == genesis_file.read_bytes()


def test_init_with_nonsense_makes_nothing(milon: Milon, tmp_path: Path) -> None:
    assert milon("init", "--data", tmp_path / "new", "--role", "miner").code == 2
    assert milon("init", "--data", tmp_path / "new", "--bootstrap", "x").code == 2
    assert milon("init", "--data", tmp_path / "new", "--genesis", tmp_path / "none").code == 2
    assert os.listdir(tmp_path) == []


def test_join_needs_to_know_the_chain(milon: Milon, tmp_path: Path, started: list[tuple[Path, Config]]) -> None:
    told = milon("join", "--data", tmp_path / "new")
    assert told.code == 2
    assert "--genesis" in told.err
    assert started == []


def test_join_remembers_what_it_was_told(
    milon: Milon, tmp_path: Path, started: list[tuple[Path, Config]], genesis_file: Path
) -> None:
    root = tmp_path / "new"
    words = ("join", "--data", root, "--initial-peers", ADDRESS, "--genesis-hash", HASH, "--threads", 2)
    assert milon(*words).code == 0
    assert milon("join", "--data", root, "--role", "full", "--genesis", genesis_file).code == 0
    config = Config(genesis_hash=HASH, bootstrap=(ADDRESS,), threads=2)
    assert started == [(root, config), (root, Config(**{**_fields(config), "role": "full"}))]
    assert load_config(NodeFolder(root)).role == "full"


def _fields(config: Config) -> dict[str, object]:
    return {name: getattr(config, name) for name in Config.__slots__}


def test_join_refuses_another_chain(
    milon: Milon, tmp_path: Path, started: list[tuple[Path, Config]], genesis_file: Path
) -> None:
    told = milon("join", "--data", tmp_path / "new", "--genesis", genesis_file, "--genesis-hash", "00" * 32)
    assert told.code == 2
    assert "wrong-chain" in told.err
    root = tmp_path / "other"
    assert milon("join", "--data", root, "--genesis", genesis_file).code == 0
    assert milon("join", "--data", root, "--genesis-hash", "00" * 32).code == 2
    assert len(started) == 1


def test_status_shows_the_node(milon: Milon, node: Path) -> None:
    told = milon("status", "--node", node, "--json")
    assert (told.code, told.json["height"], len(told.json["peers"])) == (0, 12, 4)
    text = milon("status", "--node", node).out
    assert ACCOUNTS[0].hex() in text
    assert f"replay of {ACCOUNTS[1].hex()[:8]}, round 2 1/2, loss 0.5000" in text


def test_the_folder_may_come_from_the_environment(milon: Milon, node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILON_DATA", str(node))
    assert milon("status").code == 0


def test_peers_are_listed(milon: Milon, node: Path) -> None:
    assert len(milon("peers", "--node", node, "--json").json["peers"]) == 4
    assert "12D3KooW3" in milon("peers", "--node", node).out


def test_stop_reaches_the_node(milon: Milon, node: Path, served: Served) -> None:
    assert milon("stop", "--node", node).code == 0
    assert served.node.is_stopped


def test_a_node_without_room_on_the_disk_ends_with_its_own_code(
    milon: Milon, tmp_path: Path, genesis_file: Path
) -> None:
    folder = NodeFolder(tmp_path / "node")
    milon("init", "--data", folder.root, "--genesis", genesis_file)
    text = folder.config.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("disk_free_bytes_min")]
    folder.config.write_text("\n".join([*lines, f"disk_free_bytes_min = {1 << 50}"]))
    told = milon("join", "--data", folder.root)
    assert told.code == 5
    assert "must stay free" in told.err and "start again" in told.err
    assert not folder.address.exists()


def test_a_checkpoint_budget_has_units_and_is_kept(
    milon: Milon, tmp_path: Path, genesis_file: Path, started: list[tuple[Path, Config]]
) -> None:
    folder = tmp_path / "node"
    told = milon("join", "--data", folder, "--genesis", genesis_file, "--checkpoint-budget", "500MB")
    assert told.code == 0 and started[0][1].checkpoint_bytes_max == 500_000_000
    assert load_config(NodeFolder(folder)).checkpoint_bytes_max == 500_000_000
    refused = milon("join", "--data", folder, "--checkpoint-budget", "much")
    assert refused.code == 2 and "--checkpoint-budget" in refused.err and "8GiB" in refused.err
    assert len(started) == 1


def test_people_see_where_a_training_went_on() -> None:
    work = {"kind": "train", "trainer": None, "round": 2, "segment": 5, "total": 8, "loss": None, "resumed": 3}
    assert describe_work(work) == "train, round 2 5/8, resumed at segment 3"
    assert describe_work(work | {"resumed": 0}) == "train, round 2 5/8"
