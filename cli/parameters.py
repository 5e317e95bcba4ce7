"""Chain parameters from the command line: the three times that every network sets, and any other by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from milon.chain.params import Parameters

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="NAME=NUMBER of any other chain parameter, such as epoch_blocks=1000; repeat."),
]


def make_parameters(
    block_time_ms: int, busy_block_time_ms: int, delta_ms: int, settings: Sequence[str] = ()
) -> Parameters:
    """Chain parameters with these times and settings, the others as they are; a usage error for what is none.

    Whether they go together, `verify_genesis` says of the genesis they are in.
    """
    from dataclasses import fields, replace

    from milon.base.units import Count
    from milon.chain.params import Parameters

    names = {field.name for field in fields(Parameters)}
    chosen: dict[str, Any] = {}  # units are plain integers, whatever their names
    for setting in settings:
        name, _, number = setting.partition("=")
        if name not in names:
            raise typer.BadParameter(f"{name!r} is no chain parameter; they are {', '.join(sorted(names))}")
        if not (number.isascii() and number.isdigit() and len(number) < 19):
            raise typer.BadParameter(f"{setting!r} is not NAME=NUMBER, such as epoch_blocks=1000")
        chosen[name] = int(number)
    parameters = Parameters(
        block_time_ms=Count(block_time_ms), busy_block_time_ms=Count(busy_block_time_ms), delta_ms=Count(delta_ms)
    )
    return replace(parameters, **chosen)
