"""Bytes between peers."""
