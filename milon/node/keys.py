"""Key files and the API's token: made once, for the owner alone, refused when anybody else can read them."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId
from milon.base.signing import SecretKey
from milon.node.folder import PRIVATE, NodeFolder, read_file, refusing_os_errors, write_file
from milon.p2p.identity import compute_peer_id

_HEADER = "milon ed25519 key of "
_KEY_FILE_MAX_BYTES = 256  # two lines of hexadecimal
_TOKEN_BYTES = 32  # as hard to guess as a key


def generate_key() -> SecretKey:
    """A new key from the operating system's randomness."""
    return SecretKey(secrets.token_bytes(32))


def write_key(path: Path, key: SecretKey) -> None:
    """Write a key file with mode 0600; `Rejected(DUPLICATE)` where the file exists: a key is never overwritten."""
    text = f"{_HEADER}{key.account.hex()}\n{key.seed.hex()}\n"
    write_file(path, text.encode(), PRIVATE, overwrite=False)


def _require_private(path: Path) -> None:
    with refusing_os_errors(f"cannot read {path}"):
        mode = stat.S_IMODE(path.stat().st_mode)
    require(
        mode & 0o077 == 0,
        Reason.NOT_ALLOWED,
        f"others can read {path} (mode {mode:04o}); run `chmod 600 {path}`, and replace the key if it was ever shared",
    )


def _parse(path: Path, text: str) -> tuple[str, str]:
    lines = text.split("\n")
    if len(lines) != 3 or not lines[0].startswith(_HEADER) or lines[2]:
        raise Rejected(Reason.MALFORMED, f"{path} is not a milon key file")
    return lines[0].removeprefix(_HEADER), lines[1]


def load_key(path: Path) -> SecretKey:
    """The key in a file; `Rejected` where it is missing, readable by others, not a key, or not that of its header."""
    _require_private(path)
    account, seed = _parse(path, read_file(path, _KEY_FILE_MAX_BYTES).decode("ascii", "replace"))
    try:
        key = SecretKey(bytes.fromhex(seed))
    except ValueError:
        raise Rejected(Reason.MALFORMED, f"{path} is not a milon key file") from None
    require(key.account.hex() == account, Reason.CORRUPT, f"the key in {path} is not that of the account in its header")
    return key


def read_account(path: Path) -> AccountId:
    """The account a key file is for, without its secret."""
    account, _ = _parse(path, read_file(path, _KEY_FILE_MAX_BYTES).decode("ascii", "replace"))
    return parse_account(account)


def parse_account(text: str) -> AccountId:
    """An account from its 64 hexadecimal digits."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    require(len(raw) == 32, Reason.MALFORMED, f"{text[:80]!r} is not an account: 64 hexadecimal digits are needed")
    return AccountId(raw)


def compute_peer_id_of(key: SecretKey) -> str:
    """The peer id of a node whose host key this is."""
    return compute_peer_id(key.account)


def ensure_key(path: Path) -> SecretKey:
    """The key in the file, which is made first where there is none."""
    if not path.exists():
        write_key(path, generate_key())
    return load_key(path)


def ensure_token(folder: NodeFolder) -> str:
    """The API's token, made first where there is none."""
    if not folder.token.exists():
        write_file(folder.token, secrets.token_hex(_TOKEN_BYTES).encode() + b"\n", PRIVATE)
    return load_token(folder)


def load_token(folder: NodeFolder) -> str:
    """The API's token; `Rejected` where it is missing, readable by others or no token."""
    _require_private(folder.token)
    text = read_file(folder.token, 2 * _TOKEN_BYTES + 1).decode("ascii", "replace").strip()
    require(
        len(text) == 2 * _TOKEN_BYTES, Reason.MALFORMED, f"{folder.token} holds no token; delete it and start again"
    )
    return text
