"""`milon keys` and `milon genesis`."""

from pathlib import Path

from milon.node.testnet_files import load_genesis
from tests.cli.conftest import Milon


def test_a_key_is_made_shown_and_listed(milon: Milon, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "a.key"
    account = milon("keys", "generate", path).out.strip()
    assert milon("keys", "show", path, "--json").json["account"] == account
    assert milon("keys", "list", "--node", tmp_path, "--json").json == {
        "keys": [{"path": str(path), "account": account}]
    }
    assert account in milon("keys", "list", "--node", tmp_path).out
    secret = path.read_text().splitlines()[1]
    assert secret not in milon("keys", "show", path).out


def test_a_key_is_never_overwritten(milon: Milon, tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    milon("keys", "generate", path)
    before = path.read_bytes()
    told = milon("keys", "generate", path, "--json")
    assert (told.code, told.json["error"]["reason"]) == (2, "duplicate")
    assert path.read_bytes() == before


def test_a_shared_key_is_refused(milon: Milon, tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    milon("keys", "generate", path)
    path.chmod(0o644)
    told = milon("keys", "show", path)
    assert told.code == 2
    assert "chmod 600" in told.err


def test_a_genesis_is_made_shown_and_named(milon: Milon, tmp_path: Path) -> None:
    path = tmp_path / "genesis.cbor"
    accounts = [milon("keys", "generate", tmp_path / f"{name}.key").out.strip() for name in "ab"]
    words = ("--validator", f"{accounts[0]}:5:1000", "--account", f"{accounts[1]}:7", "--delta-ms", "300")
    found = milon("genesis", "create", path, "--chain-id", "mine", *words).out.strip()
    assert milon("genesis", "hash", path).out.strip() == found
    assert milon("genesis", "hash", path, "--expect", found).code == 0
    assert milon("genesis", "hash", path, "--expect", "00" * 32).code == 1
    shown = milon("genesis", "show", path, "--json").json
    assert (shown["genesis_hash"], shown["chain_id"], shown["parameters"]["delta_ms"]) == (found, "mine", 300)
    assert accounts[1] in milon("genesis", "show", path).out
    assert load_genesis(path).chain_id == "mine"


def test_a_genesis_that_cannot_be_is_not_written(milon: Milon, tmp_path: Path) -> None:
    path = tmp_path / "genesis.cbor"
    for validator in ("zz:1:1", "ab" * 32 + ":1", "ab" * 32 + ":1:0", "ab" * 32 + ":-1:5"):
        assert milon("genesis", "create", path, "--chain-id", "mine", "--validator", validator).code == 2
    assert not path.exists()
    path.write_bytes(b"junk")
    assert milon("genesis", "show", path).code == 2
