"""Settings: what is written comes back, and what is wrong is named."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.errors import Reason, Rejected
from milon.gpu.attacks_kinds import KINDS
from milon.gpu.attacks_runs import LAZY
from milon.gpu.attacks_steps import BIT_FLIP
from milon.node.config import (
    ADVERSARIES,
    Config,
    format_config,
    load_config,
    parse_bytes,
    parse_config,
    save_config,
    verify_multiaddress,
)
from milon.node.folder import NodeFolder
from milon.node.wiring import ACCEPTING

ADDRESS = "/ip4/10.0.0.1/tcp/4001/p2p/12D3KooWTest"


def _refusal(text: str) -> Rejected:
    with pytest.raises(Rejected) as refusal:
        parse_config(text)
    return refusal.value


def test_settings_survive_a_round_trip(tmp_path: Path) -> None:
    config = Config(role="trainer", genesis_hash="ab" * 32, listen_port=4001, bootstrap=(ADDRESS, ADDRESS), threads=2)
    save_config(NodeFolder(tmp_path), config)
    assert load_config(NodeFolder(tmp_path)) == config
    assert parse_config("") == Config()


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(st.characters(codec="utf-8"), max_size=64))
def test_any_text_survives(text: str) -> None:
    assert tomllib.loads(format_config(Config(adversary=text)))["adversary"] == text


@pytest.mark.parametrize(
    ("text", "reason", "told"),
    [
        ("rol = 'full'", Reason.UNKNOWN, "did you mean 'role'?"),
        ("adversary = 'evil'", Reason.OUT_OF_RANGE, "it may be sign-flip, scaled"),
        ("zzzz = 1", Reason.UNKNOWN, "known are role"),
        ("role = 'miner'", Reason.OUT_OF_RANGE, "validator, trainer, full"),
        ("listen_port = '4001'", Reason.WRONG_TYPE, "a whole number"),
        ("listen_port = 70000", Reason.OUT_OF_RANGE, "0 to 65535"),
        ("threads = true", Reason.WRONG_TYPE, "a whole number"),
        ("listen_host = 'localhost'", Reason.MALFORMED, "not an IP address"),
        ("bootstrap = 'x'", Reason.WRONG_TYPE, "a list of strings"),
        ("bootstrap = ['x']", Reason.MALFORMED, "one looks like /ip4/"),
        ("genesis_hash = 'abc'", Reason.MALFORMED, "64 hexadecimal digits"),
        ("blob_store_bytes_max = 1", Reason.OUT_OF_RANGE, "blob_store_bytes_max"),
        ("= 1", Reason.MALFORMED, "not TOML"),
    ],
)
def test_a_wrong_setting_is_named(text: str, reason: Reason, told: str) -> None:
    refusal = _refusal(text)
    assert refusal.reason is reason
    assert told in refusal.detail


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:4001",
        "/ip4/1.2.3.4/tcp/4001",
        "/ip4/1.2.3.4/tcp/0/p2p/x",
        "/ip4/1.2.3.4/udp/1/p2p/x",
        "/ip4//tcp/1/p2p/x",
        "/ip4/1.2.3.4/tcp/²/p2p/x",
        ADDRESS + "y" * 256,
    ],
)
def test_a_bootstrap_address_needs_host_port_and_peer(address: str) -> None:
    with pytest.raises(Rejected) as refusal:
        verify_multiaddress(address)
    assert refusal.value.reason is Reason.MALFORMED


def test_the_adversaries_are_those_that_exist() -> None:
    assert set(ADVERSARIES) == {*KINDS, BIT_FLIP, LAZY, ACCEPTING}


def test_a_folder_without_settings_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as refusal:
        load_config(NodeFolder(tmp_path))
    assert "milon init" in refusal.value.detail


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1048576", 1 << 20), ("500MB", 500_000_000), ("8GiB", 8 << 30), (" 2 KiB ", 2_048)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_bytes("--checkpoint-budget", text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.5GiB", "8 gib", "1e9", "9" * 30])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse_bytes("--checkpoint-budget", text)
    assert refused.value.reason is Reason.MALFORMED and "--checkpoint-budget" in refused.value.detail
