"""Proof of learning as a protocol over digests and integers; no tensor lives here."""
