"""The nouns of the chain: transactions, blocks, certificates, genesis, parameters."""
