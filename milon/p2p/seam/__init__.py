"""Corrections to libp2p 0.8.1, one per module, each with its reason."""
