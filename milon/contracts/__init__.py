"""What a transaction does to the ledger."""
