"""Moving a validator to another machine without ever letting two of them sign.

Exporting disables the source before the bundle exists: a file `moved` in the folder, which every start looks at, then
the bundle, then the keys are taken out of the source. Importing writes how far the validator has signed before its key,
empties the bundle of its secret before the target may start, and leaves in the bundle who took it. After a crash in
between either call is made again on the same folder and goes on.

What this cannot see: a copy of the bundle made before it was imported, and a copy of the source folder made before
the export. Whoever starts one of those beside the moved validator signs twice and loses its stake.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, Rejected, require
from milon.base.hashing import digest
from milon.base.ids import AccountId, Digest, short
from milon.base.signing import SecretKey
from milon.base.units import Count, Epoch, View
from milon.consensus.messages import LoggedVote
from milon.node.config import Config, load_config, save_config
from milon.node.folder import PRIVATE, NodeFolder, locked, read_file, refusing_os_errors, write_file
from milon.node.keys import ensure_token, load_key, write_key
from milon.node.vote_log import VoteLog

BUNDLE_MAX_BYTES = 64 << 10  # two keys, some numbers and up to 64 addresses

_FORMAT = b"milon-validator/1\n"


@wire("validator-bundle/1")
@dataclass(frozen=True, slots=True)
class Bundle:
    """A validator between two machines."""

    name: Digest  # random: tells one move from another
    move: Count  # how often this validator has been moved, this time included
    account: AccountId  # whose
    validator_seed: bytes  # the account's key; empty once imported
    network_seed: bytes  # the host key; empty once imported
    epoch: Epoch  # nothing was signed in a later one
    view: View  # nor in a later view of it
    genesis_hash: str  # of the chain, hexadecimal; empty where the source did not know it
    bootstrap: tuple[str, ...]  # addresses the source dialled
    imported_into: str  # the folder that took it; empty before


class Stage(StrEnum):
    """Where a validator is, as a folder knows it."""

    AWAY = "away"  # given away: the folder may not sign
    ARRIVING = "arriving"  # not here whole: the folder may not sign yet
    HERE = "here"  # arrived


@wire("validator-move/1")
@dataclass(frozen=True, slots=True)
class Move:
    """What a folder remembers of the last move it took part in."""

    name: Digest  # of the bundle
    move: Count  # its number
    account: AccountId  # whose
    stage: str  # a `Stage`
    place: str  # the bundle's path


def _seal(value: Bundle | Move) -> bytes:
    raw = encode(value)
    return _FORMAT + digest("validator-move", raw) + raw


def _open(raw: bytes, path: Path) -> bytes:
    require(raw.startswith(_FORMAT), Reason.MALFORMED, f"{path} is not a validator's bundle of this version")
    body = raw[len(_FORMAT) + 32 :]
    is_whole = raw[len(_FORMAT) : len(_FORMAT) + 32] == digest("validator-move", body)
    require(is_whole, Reason.CORRUPT, f"{path} is damaged: its checksum does not fit; copy it again")
    return body


def read_bundle(path: Path) -> Bundle:
    """A bundle's content, used or not; `Rejected` where the file is missing, damaged or something else."""
    return decode(Bundle, _open(read_file(path, BUNDLE_MAX_BYTES), path))


def read_move(folder: NodeFolder) -> Move | None:
    """The last move of a folder's validator; None where it was never moved."""
    path = folder.moved
    return decode(Move, _open(read_file(path, BUNDLE_MAX_BYTES), path)) if path.exists() else None


def require_here(folder: NodeFolder) -> None:
    """Raise `Rejected(NOT_ALLOWED)` where the folder gave its validator away or has not got it whole."""
    move = read_move(folder)
    if move is None or move.stage == Stage.HERE:
        return
    if move.stage == Stage.ARRIVING or folder.validator_key.exists():
        raise Rejected(
            Reason.NOT_ALLOWED,
            f"the move of validator {short(move.account)} with {move.place} was interrupted in {folder.root}; "
            "nothing may sign here until it is whole; give the same export or import command again",
        )
    raise Rejected(
        Reason.NOT_ALLOWED,
        f"validator {short(move.account)} was moved away from {folder.root} with {move.place}; started here as well it "
        "would sign twice and lose its stake; run it where the bundle was imported, or move it back the same way",
    )


def require_votes(folder: NodeFolder) -> None:
    """Raise `Rejected(CORRUPT)` where the folder holds a chain and no record of how far it has signed."""
    has_run = (folder.chain / "data.mdb").exists()
    if has_run and not (folder.votes / "votes.signed").exists():
        raise Rejected(
            Reason.CORRUPT,
            f"{folder.votes}/votes.signed is gone though this node has run before, so it is not known what it signed; "
            "bring the file back, or see a running node's `milon status` and say "
            f"`milon validator sign-above VIEW --data {folder.root}` with a view well above the network's",
        )


def _highest_signed(votes: Path) -> tuple[Epoch, View]:
    log = VoteLog(votes)
    try:
        contents = [record.vote.content for record in log.records if isinstance(record, LoggedVote)]
        return max([log.signed, *((content.epoch, content.view) for content in contents)])
    finally:
        log.close()


def sign_above(folder: NodeFolder, epoch: Epoch, view: View) -> tuple[Epoch, View]:
    """Let the validator of a stopped node sign nothing up to that epoch and view; the highest pair now barred."""
    with locked(folder):
        log = VoteLog(folder.votes)
        try:
            log.raise_signed((epoch, view))
            return log.signed
        finally:
            log.close()


def export_validator(folder: NodeFolder, path: Path) -> Bundle:
    """Take the validator out of a stopped node's folder into a bundle at `path`, which must not exist yet.

    The folder refuses to start from the first moment on. Raises `Rejected`: IN_USE while the node runs, NOT_ALLOWED
    where the validator is away already, DUPLICATE where `path` exists.
    """
    require(folder.root.is_dir(), Reason.UNAVAILABLE, f"{folder.root} is not a node's folder")
    path = path.absolute()
    with locked(folder):
        move = read_move(folder)
        is_resumed = move is not None and move.stage == Stage.AWAY and folder.validator_key.exists()
        if is_resumed and move is not None:
            require(str(path) == move.place, Reason.NOT_ALLOWED, f"an export was interrupted; name {move.place} again")
        else:
            require_here(folder)
            count = Count(1 if move is None else move.move + 1)
            name = Digest(secrets.token_bytes(32))
            move = Move(name, count, load_key(folder.validator_key).account, Stage.AWAY, str(path))
        is_written = is_resumed and path.exists() and read_bundle(path).name == move.name
        require(is_written or not path.exists(), Reason.DUPLICATE, f"{path} is there already; nothing was overwritten")
        bundle = read_bundle(path) if is_written else _gather(folder, move)
        write_file(folder.moved, _seal(move), PRIVATE)
        if not is_written:
            write_file(path, _seal(bundle), PRIVATE, overwrite=False)
        with refusing_os_errors(f"cannot take the keys out of {folder.root}"):
            folder.network_key.unlink(missing_ok=True)
            folder.validator_key.unlink()
    return bundle


def _gather(folder: NodeFolder, move: Move) -> Bundle:
    config = load_config(folder) if folder.config.exists() else Config()
    epoch, view = _highest_signed(folder.votes)
    return Bundle(
        name=move.name,
        move=move.move,
        account=move.account,
        validator_seed=load_key(folder.validator_key).seed,
        network_seed=load_key(folder.network_key).seed,
        epoch=epoch,
        view=view,
        genesis_hash=config.genesis_hash,
        bootstrap=config.bootstrap,
        imported_into="",
    )


def import_validator(path: Path, folder: NodeFolder, *, is_back: bool = False) -> Bundle:
    """Put the validator of a bundle into a folder that has none; what the bundle holds afterwards is no secret.

    With `is_back` the folder may be the one it was exported from, the bundle never having been imported elsewhere.
    Raises `Rejected`: DUPLICATE for a bundle that was used or an older one than the folder knows, IN_USE where a node
    runs on the folder, NOT_ALLOWED where the folder has a validator of its own or has signed for another.
    """
    path = path.absolute()
    bundle = read_bundle(path)
    folder.make()
    with locked(folder):
        move = read_move(folder)
        is_resumed = move is not None and move.name == bundle.name and move.stage == Stage.ARRIVING
        if not (is_resumed and folder.validator_key.exists()):
            _require_fresh(bundle, path)
            if not is_resumed:
                _require_free(folder, bundle, move, is_back)
            arriving = Move(bundle.name, bundle.move, bundle.account, Stage.ARRIVING, str(path))
            write_file(folder.moved, _seal(arriving), PRIVATE)
            _write_validator(folder, bundle)
        place = str(folder.root.absolute())
        emptied = replace(bundle, validator_seed=b"", network_seed=b"", imported_into=place)
        write_file(path, _seal(emptied), PRIVATE)
        here = Move(bundle.name, bundle.move, bundle.account, Stage.HERE, str(path))
        write_file(folder.moved, _seal(here), PRIVATE)
    return emptied


def _require_fresh(bundle: Bundle, path: Path) -> None:
    require(
        bool(bundle.validator_seed),
        Reason.DUPLICATE,
        f"{path} was imported into {bundle.imported_into} and holds no key any more; "
        "to move the validator on, export it from there",
    )
    is_own = SecretKey(bundle.validator_seed).account == bundle.account
    require(is_own, Reason.CORRUPT, f"{path}: the key is not that of the account")


def _require_free(folder: NodeFolder, bundle: Bundle, move: Move | None, is_back: bool) -> None:
    if move is not None and move.account == bundle.account:
        is_own = is_back and bundle.name == move.name and move.stage == Stage.AWAY
        require(
            bundle.move > move.move or is_own,
            Reason.DUPLICATE,
            f"{folder.root} knows move {move.move} of validator {short(bundle.account)} and this bundle is move "
            f"{bundle.move}; it may sign elsewhere by now; --back takes a bundle back into the folder it came from, "
            "if you are sure that it was imported nowhere",
        )
    if folder.validator_key.exists():
        raise Rejected(
            Reason.NOT_ALLOWED,
            f"{folder.root} has a validator's key of its own ({folder.validator_key}) and a key is never overwritten; "
            "name another folder with --data",
        )
    is_other = move is None or move.account != bundle.account
    if is_other and (folder.votes / "votes.signed").exists():
        epoch, view = _highest_signed(folder.votes)
        require(
            (epoch, view) == (0, 0),
            Reason.NOT_ALLOWED,
            f"somebody else has signed from {folder.root} (epoch {epoch}, view {view}); name another folder",
        )


def _write_validator(folder: NodeFolder, bundle: Bundle) -> None:
    """How far was signed, then settings, then the keys: a folder with the key always knows how far."""
    log = VoteLog(folder.votes)
    try:
        log.raise_signed((bundle.epoch, bundle.view))
    finally:
        log.close()
    config = load_config(folder) if folder.config.exists() else Config(bootstrap=bundle.bootstrap)
    is_ours = config.genesis_hash in ("", bundle.genesis_hash) or not bundle.genesis_hash
    require(
        is_ours, Reason.WRONG_CHAIN, f"{folder.root} belongs to chain {config.genesis_hash[:8]}, the bundle does not"
    )
    save_config(folder, replace(config, genesis_hash=config.genesis_hash or bundle.genesis_hash))
    ensure_token(folder)
    if not folder.network_key.exists():
        write_key(folder.network_key, SecretKey(bundle.network_seed))
    write_key(folder.validator_key, SecretKey(bundle.validator_seed))
