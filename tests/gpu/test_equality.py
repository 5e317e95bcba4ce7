"""The comparison of settings: what it runs in processes of their own, what it skips, and what it keeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from bench import equality
from bench.cases import CASES, digest_of, train
from bench.golden import make_tensor, read_vectors, unpack
from milon.base.codec import encode
from milon.gpu.interpreter import load
from milon.pol.program import InputRole

NAME, STEPS = "convolution-net", 2


def test_two_ranks_give_the_digest_of_one_process(tmp_path: Path) -> None:
    program = unpack(read_vectors()[NAME]["program"])
    made = {number: make_tensor(entry, number) for number, entry in enumerate(program.inputs)}
    state = {entry.name: made[n] for n, entry in enumerate(program.inputs) if entry.role is InputRole.STATE}
    (tmp_path / f"{NAME}.program").write_bytes(encode(program))
    save_file(state, tmp_path / f"{NAME}.state")
    wanted = digest_of(train(CASES[NAME], load(program), state, STEPS))
    rows = equality._run(equality.Setting("2 ranks", ranks=2), tmp_path, STEPS, [NAME])
    assert [(row["rank"], row["case"], row["digest"]) for row in rows] == [(0, NAME, wanted), (1, NAME, wanted)]


def test_what_the_machine_lacks_is_skipped_with_the_reason() -> None:
    lacking = equality._find_lack(equality.Setting("far", needs="no-such-instructions"))
    assert lacking.lacking == "this processor has no no-such-instructions"
    others = {setting.name: setting.lacking for setting in equality._list_settings([])}
    own = equality._ask_version(sys.executable)
    missing = [f"torch {version}" for version in equality.TORCHES if not own.startswith(version)]
    assert missing and all("--python" in others[name] for name in missing)


def test_what_was_run_is_kept_and_not_run_again(tmp_path: Path) -> None:
    results = tmp_path / "equality.json"
    assert equality._read_rows(results) == []
    base = equality.BASE.name
    rows = [{"setting": base, "steps": 5, "case": case, "digest": case * 2} for case in ("a", "b")]
    results.write_text(json.dumps({"rows": rows}))
    found = equality._read_rows(results)
    assert found == rows and equality._find_wanted(found, 5) == {"a": "aa", "b": "bb"}
    assert equality._find_wanted(found, 6) == {}
    assert equality._is_done(equality.BASE, found, 5, ["a", "b"])
    assert not equality._is_done(equality.BASE, found, 5, ["a", "c"])
    assert not equality._is_done(equality.BASE, found, 6, ["a"])
