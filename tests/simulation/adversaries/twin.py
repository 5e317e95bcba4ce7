"""One of two nodes that run with one key, each with its own disk: each follows the rules, both together do not."""

from tests.simulation.network import Behaviour


class Twin(Behaviour):
    """Does what its engine wants; its twin does too, and they do not know of each other."""

    is_honest = False
