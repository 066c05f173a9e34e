"""Formats of landing files: what is in a record, as SQL made from the contract."""
