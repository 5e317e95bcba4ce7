"""Key files and the token."""

from pathlib import Path

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.signing import secret_key_from
from milon.node.folder import NodeFolder
from milon.node.keys import (
    ensure_key,
    ensure_token,
    generate_key,
    load_key,
    load_token,
    parse_account,
    read_account,
    write_key,
)


def _reason(path: Path) -> Reason:
    with pytest.raises(Rejected) as refusal:
        load_key(path)
    return refusal.value.reason


def test_a_written_key_comes_back(tmp_path: Path) -> None:
    key = generate_key()
    write_key(tmp_path / "keys" / "a.key", key)
    assert load_key(tmp_path / "keys" / "a.key") == key
    assert read_account(tmp_path / "keys" / "a.key") == key.account


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    first = secret_key_from("first")
    write_key(tmp_path / "a.key", first)
    with pytest.raises(Rejected) as refusal:
        write_key(tmp_path / "a.key", secret_key_from("second"))
    assert refusal.value.reason is Reason.DUPLICATE
    assert ensure_key(tmp_path / "a.key") == first


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    write_key(tmp_path / "a.key", secret_key_from("a"))
    for mode in (0o640, 0o604, 0o620):
        (tmp_path / "a.key").chmod(mode)
        assert _reason(tmp_path / "a.key") is Reason.NOT_ALLOWED


def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    account = secret_key_from("a").account.hex()
    wrong_seed = secret_key_from("b").seed.hex()
    for content, reason in (
        ("", Reason.MALFORMED),
        ("x\n" * 500, Reason.TOO_LARGE),
        (f"milon ed25519 key of {account}\nzz\n", Reason.MALFORMED),
        (f"milon ed25519 key of {account}\nabcd\n", Reason.MALFORMED),
        (f"milon ed25519 key of {account}\n{wrong_seed}\n", Reason.CORRUPT),
    ):
        path.write_text(content)
        path.chmod(0o600)
        assert _reason(path) is reason
    with pytest.raises(Rejected) as refusal:
        load_key(path)
    assert wrong_seed not in str(refusal.value)


def test_an_account_is_64_digits() -> None:
    account = secret_key_from("a").account
    assert parse_account(account.hex()) == account
    for text in ("", "ab", account.hex()[:-2], account.hex() + "00", "g" * 64):
        with pytest.raises(Rejected):
            parse_account(text)


def test_the_token_is_made_once_and_must_stay_private(tmp_path: Path) -> None:
    folder = NodeFolder(tmp_path)
    token = ensure_token(folder)
    assert len(bytes.fromhex(token)) == 32
    assert ensure_token(folder) == load_token(folder) == token
    folder.token.chmod(0o644)
    with pytest.raises(Rejected) as refusal:
        load_token(folder)
    assert refusal.value.reason is Reason.NOT_ALLOWED
