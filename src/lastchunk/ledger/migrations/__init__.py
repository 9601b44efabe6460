"""The ledger's schema, step by step; run by `lastchunk.ledger.upgrade` when a ledger is opened."""
