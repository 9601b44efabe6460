"""The tour: real clients, a provider that misbehaves, and its bill held against the ledger."""
