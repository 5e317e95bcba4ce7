"""What may go wrong between a user and a node."""

from __future__ import annotations

from milon.base.errors import Rejected


class NoNode(Exception):
    """Nothing answers where the node should be."""


class Refused(Rejected):
    """The node or the chain said no, with its reason; bad input found on this side is a plain `Rejected`."""
