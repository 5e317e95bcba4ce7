"""Exit codes, errors, help."""

import subprocess
import sys
from pathlib import Path

import pytest

from milon.base.errors import Reason, Rejected
from milon_cli.app import find_refusal
from tests.cli.conftest import Milon

COMMANDS = (
    ("init",), ("join",), ("stop",), ("status",), ("peers",), ("submit-job",), ("verify-block",), ("demo",),
    ("keys", "generate"), ("keys", "show"), ("keys", "list"), ("genesis", "create"), ("genesis", "show"),
    ("genesis", "hash"), ("testnet", "up"), ("testnet", "down"), ("testnet", "status"), ("testnet", "logs"),
    ("testnet", "files"), ("job", "list"), ("job", "show"), ("job", "watch"), ("block", "show"), ("model", "pull"),
    ("aggregators",), ("program", "build"), ("program", "show"),
    ("account", "show"), ("account", "transfer"), ("stake", "bond"), ("stake", "unbond"), ("stake", "delegate"),
    ("stake", "undelegate"), ("stake", "redelegate"),
    ("stake", "withdraw"), ("stake", "stand"), ("stake", "retire"), ("stake", "unjail"),
    ("job", "quote"), ("rewards", "explain"), ("validator", "list"), ("validator", "show"),
)  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_help_with_an_example(milon: Milon, words: tuple[str, ...]) -> None:
    told = milon(*words, "--help")
    assert told.code == 0
    assert f"Example: milon {' '.join(words)}" in " ".join(told.out.split())


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != ("demo",)])
def test_every_command_that_answers_can_answer_in_json(milon: Milon, words: tuple[str, ...]) -> None:
    assert "--json" in milon(*words, "--help").out


def test_the_codes_of_bad_usage(milon: Milon) -> None:
    assert milon("nothing").code == 2
    assert milon("status", "--no-such-option").code == 2
    assert milon("verify-block").code == 2
    assert milon().code == 2


def test_no_node_is_a_code_of_its_own(milon: Milon, tmp_path: Path) -> None:
    told = milon("status", "--node", tmp_path)
    assert told.code == 4
    assert "milon join" in told.err
    told = milon("status", "--node", tmp_path, "--json")
    assert (told.code, told.json["error"]["reason"]) == (4, "no-node")


def test_a_stale_address_is_no_node_either(milon: Milon, tmp_path: Path) -> None:
    (tmp_path / "api.address").write_text("http://127.0.0.1:1\n")
    assert milon("status", "--node", tmp_path).code == 4


def test_the_version(milon: Milon) -> None:
    assert milon("--version").out == "milon 0.1.0\n"


def test_help_loads_no_heavy_library() -> None:
    script = (
        "import sys; from milon_cli.app import main\n"
        "code = main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'libp2p', 'httpx', 'trio', 'lmdb', 'starlette'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_closed_pipe_is_no_error() -> None:
    ran = subprocess.run(
        f"{sys.executable} -m milon_cli --help | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_refusal_of_a_task_group_is_found() -> None:
    refusal = Rejected(Reason.UNAVAILABLE, "nobody answers")
    assert find_refusal(ExceptionGroup("outer", [ExceptionGroup("inner", [refusal])])) is refusal
    with pytest.raises(ExceptionGroup):
        find_refusal(ExceptionGroup("outer", [refusal, ValueError("a defect")]))
