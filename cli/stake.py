"""`milon stake`: coins behind an account's word, and behind a validator's votes."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from .connection import send_action
from .options import DEFAULT_NODE, AmountArgument, FeeOption, JsonOption, KeyOption, NodeOption

_noun = typer.Typer(help="Coins at stake: own, and delegated to validators.", no_args_is_help=True)

ValidatorArgument = Annotated[str, typer.Argument(help="The validator's account, 64 hexadecimal digits.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.add_typer(_noun, name="stake")


@_noun.command(epilog="Example: milon stake bond 1000")
def bond(
    amount: AmountArgument,
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Put coins at stake; a trainer needs what the job's terms ask for, a validator what the chain asks for."""
    from milon.base.units import Amount
    from milon.chain.transaction import Bond

    send_action(Bond(Amount(amount)), root, key, fee, as_json)


@_noun.command(epilog="Example: milon stake unbond 1000")
def unbond(
    amount: AmountArgument,
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Ask for stake back; until the waiting time is over it can still be slashed."""
    from milon.base.units import Amount
    from milon.chain.transaction import Unbond

    send_action(Unbond(Amount(amount)), root, key, fee, as_json)


@_noun.command(epilog="Example: milon stake delegate ACCOUNT 1000")
def delegate(
    validator: ValidatorArgument,
    amount: AmountArgument,
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Lend coins to a validator's power: they earn with it, and are slashed with it."""
    from milon.base.units import Amount
    from milon.chain.transaction import Delegate
    from milon.node.keys import parse_account

    send_action(Delegate(parse_account(validator), Amount(amount)), root, key, fee, as_json)


@_noun.command(epilog="Example: milon stake undelegate ACCOUNT 1000")
def undelegate(
    validator: ValidatorArgument,
    amount: AmountArgument,
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Ask for delegated coins back; until the waiting time is over they can still be slashed."""
    from milon.base.units import Amount
    from milon.chain.transaction import Undelegate
    from milon.node.keys import parse_account

    send_action(Undelegate(parse_account(validator), Amount(amount)), root, key, fee, as_json)


@_noun.command(epilog="Example: milon stake redelegate FROM-ACCOUNT TO-ACCOUNT 1000")
def redelegate(
    source: Annotated[str, typer.Argument(help="The account of the validator to leave, 64 hexadecimal digits.")],
    target: Annotated[str, typer.Argument(help="The account of the one to go to, 64 hexadecimal digits.")],
    amount: AmountArgument,
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Move delegated coins to another validator at once; until the waiting time is over they answer for both.

    Until then they cannot be asked back, and cannot move again.
    """
    from milon.base.units import Amount
    from milon.chain.transaction import Redelegate
    from milon.node.keys import parse_account

    send_action(Redelegate(parse_account(source), parse_account(target), Amount(amount)), root, key, fee, as_json)


@_noun.command(epilog="Example: milon stake withdraw")
def withdraw(
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Collect the stake whose waiting time is over, own and delegated."""
    from milon.chain.transaction import Withdraw

    send_action(Withdraw(), root, key, fee, as_json)


def parse_percent(text: str) -> int:
    """A share like "7.5" or "7.5%" in parts per million; `BadParameter` where it is none, or finer than that."""
    try:
        millionths = Decimal(text.removesuffix("%").strip()) * 10_000
    except InvalidOperation:
        millionths = Decimal(-1)
    if not millionths.is_finite() or not 0 <= millionths <= 1_000_000 or millionths != int(millionths):
        raise typer.BadParameter(f"{text!r} is no share from 0 to 100 per cent, with at most four decimals")
    return int(millionths)


@_noun.command(epilog="Example: milon stake stand --commission 5%")
def stand(
    commission: Annotated[str, typer.Option(help="Share of what delegators earn that this validator keeps.")] = "0%",
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Ask for a place among the validators from the next epoch on, or name a lower commission."""
    from milon.base.units import Count
    from milon.chain.transaction import Stand

    send_action(Stand(Count(parse_percent(commission))), root, key, fee, as_json)


@_noun.command(epilog="Example: milon stake retire")
def retire(
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Give up the place among the validators; keep the node running until the epoch is over."""
    from milon.chain.transaction import Retire

    send_action(Retire(), root, key, fee, as_json)


@_noun.command(epilog="Example: milon stake unjail")
def unjail(
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Come back after an absence; `milon validator show` says from which height on."""
    from milon.chain.transaction import Unjail

    send_action(Unjail(), root, key, fee, as_json)
