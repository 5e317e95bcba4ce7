"""The version of the distribution, in a module of its own: everybody may import it, and it imports nothing."""

VERSION = "0.1.0"
