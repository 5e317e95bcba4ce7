"""What the exit codes mean; docs/spec/cli.md holds the same table for users."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The code a command ends with."""

    OK = 0  # done, or the answer is yes
    NO = 1  # the answer is no: a block is invalid, a run failed, a job was rejected
    CANNOT = 2  # wrong usage, or something needed is missing on this side
    REFUSED = 3  # the node or the chain refused it, and said why
    NO_NODE = 4  # nothing answers where the node should be
    NO_ROOM = 5  # the disk is full, or nearly: nothing is damaged, and starting again before there is room is no use
    INTERRUPTED = 130  # Ctrl-C
