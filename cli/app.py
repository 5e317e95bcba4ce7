"""The `milon` command: puts the nouns together, and turns what went wrong into an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Annotated

import typer

from milon.base.errors import Reason, Rejected
from milon.client.refusals import NoNode, Refused

from . import (
    account,
    aggregators,
    block,
    demo,
    doctor,
    genesis,
    job,
    keys,
    lab,
    light,
    model,
    node,
    program,
    quote,
    replay,
    rewards,
    stake,
    testnet,
    validator,
    verify_block,
)
from .exits import Exit
from .output import print_error

app = typer.Typer(
    name="milon",
    help="Train PyTorch models on machines that do not trust each other, and check the result to the bit.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_ENDING = "Exit codes: 0 done, 1 the answer is no, 2 cannot be done, 3 refused by node or chain, 4 no node, 5 no room."


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from milon import __version__

        print(f"milon {__version__}")
        raise typer.Exit(Exit.OK)


@app.callback(epilog=_ENDING)
def root(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Train PyTorch models on machines that do not trust each other, and check the result to the bit."""


for noun in (
    node,
    keys,
    genesis,
    testnet,
    job,
    quote,
    program,
    lab,
    aggregators,
    block,
    verify_block,
    rewards,
    model,
    account,
    stake,
    validator,
    replay,
    doctor,
    light,
    demo,
):
    noun.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with _noting_interrupts() as interrupts:
        code = _end(words)
    # Whatever a library makes of a Ctrl-C on its way up, it was one.
    return Exit.INTERRUPTED if interrupts and code != Exit.OK else code


@contextlib.contextmanager
def _noting_interrupts() -> Iterator[list[int]]:
    """The interrupts that come while the block runs; each is raised as ever."""
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def _end(words: list[str]) -> int:
    """Call, and turn whatever ends the call into an exit code and a line."""
    is_json = "--json" in words and words[:1] != ["demo"]
    try:
        _call(words)
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else Exit.OK if ending.code is None else Exit.CANNOT
    except KeyboardInterrupt:
        print("\nmilon: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: not an error of ours
        return Exit.OK
    except NoNode as error:
        print_error("no-node", str(error), is_json)
        return Exit.NO_NODE
    except Rejected as refusal:
        return _refuse(refusal, is_json)
    except OSError as error:
        print_error("unavailable", f"{error.filename or 'the system'}: {error.strerror}", is_json)
        return Exit.CANNOT
    return Exit.OK


def _call(words: list[str]) -> None:
    try:
        app(words, prog_name="milon")
    except ExceptionGroup as group:
        raise find_refusal(group) from None


def _refuse(refusal: Rejected, is_json: bool) -> int:
    print_error(refusal.reason.value, refusal.detail, is_json)
    if isinstance(refusal, Refused):
        return Exit.REFUSED
    return Exit.NO_ROOM if refusal.reason is Reason.FULL else Exit.CANNOT


def find_refusal(group: ExceptionGroup[Exception]) -> Rejected:
    """The refusal that ended a group of tasks; the group itself is raised again where anything else is in it."""
    refusals, others = group.split(Rejected)
    if others is not None or refusals is None:
        raise group
    inner: BaseException = refusals
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    if not isinstance(inner, Rejected):
        raise group
    return inner
