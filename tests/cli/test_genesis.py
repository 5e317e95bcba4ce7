"""`milon genesis`: the file a chain starts from, with any of the chain's parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from milon.base.signing import secret_key_from
from milon.node.testnet_files import load_genesis
from tests.cli.conftest import Milon

VALIDATOR = f"{secret_key_from('v').account.hex()}:10:1000"


def create(milon: Milon, path: Path, *settings: str) -> int:
    """The exit code of making a genesis with these settings."""
    words = [word for setting in settings for word in ("--set", setting)]
    return milon("genesis", "create", path, "--chain-id", "x", "--validator", VALIDATOR, *words).code


def test_any_parameter_can_be_set(milon: Milon, tmp_path: Path) -> None:
    path = tmp_path / "genesis.cbor"
    assert create(milon, path, "epoch_blocks=100", "block_reward=7", "unbond_blocks=2000") == 0
    parameters = load_genesis(path).parameters
    assert (parameters.epoch_blocks, parameters.block_reward, parameters.unbond_blocks) == (100, 7, 2_000)
    assert parameters.delta_ms == 1_000


@pytest.mark.parametrize(
    "setting",
    ["epochs=5", "epoch_blocks", "epoch_blocks=", "epoch_blocks=-1", "epoch_blocks=1.5", "epoch_blocks=0",
     "epoch_blocks=²", "unbond_blocks=500", "=5", "block_reward=99999999999999999999"],
)  # fmt: skip
def test_what_cannot_be_a_parameter_makes_no_file(milon: Milon, tmp_path: Path, setting: str) -> None:
    assert create(milon, tmp_path / "genesis.cbor", setting) == 2
    assert not (tmp_path / "genesis.cbor").exists()
