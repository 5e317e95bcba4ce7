"""Ledger values, the committed state tree, and where they are kept."""
