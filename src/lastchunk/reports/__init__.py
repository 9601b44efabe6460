"""Questions answered from the ledger; read only.

A report is a list of `Table`s: `calls`, `spend`, `explain` and `audit` make them, `render` turns
them into text, JSON or CSV with the same numbers in each, `words` says names in plain language.
"""
