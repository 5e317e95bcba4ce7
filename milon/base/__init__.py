"""The words every other room is written in: errors, ids, units, canonical bytes, hashes, signatures."""
