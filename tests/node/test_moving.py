"""Moving a validator: the source is off before the bundle exists, a bundle serves once, and nothing is signed twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.signing import secret_key_from, sign
from milon.base.units import Epoch, View
from milon.chain.certificate import VoteContent, VoteKind, sign_vote
from milon.consensus.messages import LoggedVote
from milon.node import moving
from milon.node.folder import NodeFolder, locked
from milon.node.keys import ensure_key, ensure_token, load_key, write_key
from milon.node.moving import (
    export_validator,
    import_validator,
    read_bundle,
    read_move,
    require_here,
    require_votes,
    sign_above,
)
from milon.node.vote_log import VoteLog

KEY = secret_key_from("validator")


def signed_of(folder: NodeFolder) -> tuple[int, int]:
    log = VoteLog(folder.votes)
    try:
        return log.signed
    finally:
        log.close()


def make_source(root: Path, view: int = 41) -> NodeFolder:
    folder = NodeFolder(root)
    folder.make()
    write_key(folder.validator_key, KEY)
    ensure_key(folder.network_key)
    ensure_token(folder)
    log = VoteLog(folder.votes)
    log.append([LoggedVote(sign_vote(KEY, "chain", VoteContent(VoteKind.NULLIFY, Epoch(0), View(view), None)))])
    log.close()
    return folder


def refusal(action: object, *arguments: object, **options: object) -> Rejected:
    with pytest.raises(Rejected) as caught:
        action(*arguments, **options)  # type: ignore[operator]
    return caught.value


def test_a_moved_validator_signs_above_what_it_signed_and_only_at_the_target(tmp_path: Path) -> None:
    source, target, path = make_source(tmp_path / "a"), NodeFolder(tmp_path / "b"), tmp_path / "v.bundle"
    host = load_key(source.network_key)
    bundle = export_validator(source, path)
    assert (bundle.account, bundle.epoch, bundle.view, bundle.move) == (KEY.account, 0, 41, 1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not source.validator_key.exists() and not source.network_key.exists()
    assert refusal(require_here, source).reason is Reason.NOT_ALLOWED
    require_here(target)
    import_validator(path, target)
    require_here(target)
    assert load_key(target.validator_key) == KEY and load_key(target.network_key) == host
    assert signed_of(target) == (0, 41)
    assert sign(KEY, "a", "b", b"c") == sign(load_key(target.validator_key), "a", "b", b"c")


def test_a_bundle_serves_once_and_keeps_no_secret(tmp_path: Path) -> None:
    source, path = make_source(tmp_path / "a"), tmp_path / "v.bundle"
    export_validator(source, path)
    assert KEY.seed in path.read_bytes()
    import_validator(path, NodeFolder(tmp_path / "b"))
    assert KEY.seed not in path.read_bytes()
    again = refusal(import_validator, path, NodeFolder(tmp_path / "c"))
    assert again.reason is Reason.DUPLICATE and str(tmp_path / "b") in again.detail
    assert not NodeFolder(tmp_path / "c").validator_key.exists()


def test_a_target_with_a_validator_or_votes_of_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.bundle"
    export_validator(make_source(tmp_path / "a"), path)
    other = NodeFolder(tmp_path / "b")
    other.make()
    write_key(other.validator_key, secret_key_from("other"))
    assert refusal(import_validator, path, other).reason is Reason.NOT_ALLOWED
    voted = make_source(tmp_path / "c")
    voted.validator_key.unlink()
    assert refusal(import_validator, path, voted).reason is Reason.NOT_ALLOWED
    with locked(NodeFolder(tmp_path / "a")):
        assert refusal(import_validator, path, NodeFolder(tmp_path / "a")).reason is Reason.IN_USE
    assert read_bundle(path).validator_seed == KEY.seed


def test_a_running_node_is_not_exported_and_a_file_is_not_overwritten(tmp_path: Path) -> None:
    source, path = make_source(tmp_path / "a"), tmp_path / "v.bundle"
    with locked(source):
        assert refusal(export_validator, source, path).reason is Reason.IN_USE
    path.write_bytes(b"mine")
    assert refusal(export_validator, source, path).reason is Reason.DUPLICATE
    assert path.read_bytes() == b"mine"
    require_here(source)


def test_to_and_fro_goes_forward_only(tmp_path: Path) -> None:
    source, other = make_source(tmp_path / "a"), NodeFolder(tmp_path / "b")
    first, second = tmp_path / "1.bundle", tmp_path / "2.bundle"
    export_validator(source, first)
    copy = tmp_path / "copy.bundle"
    copy.write_bytes(first.read_bytes())
    import_validator(first, other)
    sign_above(other, Epoch(0), View(100))
    assert export_validator(other, second).move == 2
    assert refusal(import_validator, copy, source).reason is Reason.DUPLICATE
    import_validator(second, source)
    assert signed_of(source) == (0, 100)
    move = read_move(source)
    assert move is not None and (move.move, move.stage) == (2, "here")
    # The copy of the first bundle is older than what either folder knows.
    assert refusal(import_validator, copy, other).reason is Reason.DUPLICATE
    assert refusal(import_validator, copy, other, is_back=True).reason is Reason.DUPLICATE


def test_an_export_nobody_imported_can_be_taken_back(tmp_path: Path) -> None:
    source, path = make_source(tmp_path / "a"), tmp_path / "v.bundle"
    export_validator(source, path)
    assert refusal(import_validator, path, source).reason is Reason.DUPLICATE
    import_validator(path, source, is_back=True)
    require_here(source)
    assert load_key(source.validator_key) == KEY


def crash_at(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let the `number`-th call of `moving.<name>` end the operation, as a power cut would."""
    real, calls = getattr(moving, name), []

    def cut(*arguments: object, **options: object) -> object:
        calls.append(None)
        if len(calls) == number:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(moving, name, cut)


@pytest.mark.parametrize("number", [1, 2])
def test_an_export_that_was_cut_short_goes_on_and_signs_nowhere_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    source, path = make_source(tmp_path / "a"), tmp_path / "v.bundle"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        crash_at(patch, "write_file", number)
        export_validator(source, path)
    if number == 2:  # the mark stands, the bundle does not exist
        assert "interrupted" in refusal(require_here, source).detail
        assert refusal(export_validator, source, tmp_path / "other.bundle").reason is Reason.NOT_ALLOWED
    export_validator(source, path)
    import_validator(path, NodeFolder(tmp_path / "b"))
    assert signed_of(NodeFolder(tmp_path / "b")) == (0, 41)


def test_an_export_cut_short_before_the_keys_went_makes_no_second_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = make_source(tmp_path / "a"), tmp_path / "v.bundle"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        crash_at(patch, "refusing_os_errors", 1)
        export_validator(source, path)
    assert path.exists() and source.validator_key.exists()
    assert refusal(require_here, source).reason is Reason.NOT_ALLOWED
    before = path.read_bytes()
    export_validator(source, path)
    assert path.read_bytes() == before and not source.validator_key.exists()


@pytest.mark.parametrize(
    ("name", "number"), [("write_file", n) for n in (1, 2, 3)] + [("write_key", 1), ("write_key", 2)]
)
def test_an_import_that_was_cut_short_goes_on_and_signs_nowhere_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    target, path = NodeFolder(tmp_path / "b"), tmp_path / "v.bundle"
    export_validator(make_source(tmp_path / "a"), path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        crash_at(patch, name, number)
        import_validator(path, target)
    if (name, number) != ("write_file", 1):
        assert "interrupted" in refusal(require_here, target).detail
    import_validator(path, target)
    require_here(target)
    assert load_key(target.validator_key) == KEY and signed_of(target) == (0, 41)
    assert refusal(import_validator, path, NodeFolder(tmp_path / "c")).reason is Reason.DUPLICATE


def test_a_damaged_or_foreign_bundle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.bundle"
    export_validator(make_source(tmp_path / "a"), path)
    raw = path.read_bytes()
    for place in range(0, len(raw), 7):
        path.write_bytes(raw[:place] + bytes((raw[place] ^ 1,)) + raw[place + 1 :])
        assert refusal(read_bundle, path).reason in (Reason.CORRUPT, Reason.MALFORMED)
    for bad in (b"", b"x" * 100, raw[:-1], raw + b"x"):
        path.write_bytes(bad)
        assert refusal(read_bundle, path).reason in (Reason.CORRUPT, Reason.MALFORMED)


def test_a_node_that_ran_and_does_not_know_what_it_signed_does_not_start(tmp_path: Path) -> None:
    source = make_source(tmp_path / "a")
    require_votes(source)
    (source.chain / "data.mdb").write_bytes(b"a chain")
    require_votes(source)
    (source.votes / "votes.signed").unlink()
    found = refusal(require_votes, source)
    assert found.reason is Reason.CORRUPT and "sign-above" in found.detail
    assert sign_above(source, Epoch(0), View(500)) == (0, 500)
    require_votes(source)
    assert sign_above(source, Epoch(0), View(7)) == (0, 500)
