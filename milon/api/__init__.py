"""HTTP over read-only snapshots of a node."""
