"""The `milon` command: parse, call, print."""
