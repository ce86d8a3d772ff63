"""The specification: the pseudocode as an executable oracle, the clauses and the profiles (data)."""
