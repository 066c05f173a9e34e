"""Parsing and printing only."""


def main() -> None:
    """Runs the command line."""
