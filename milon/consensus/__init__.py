"""Which block is next: Simplex as a pure function."""
