"""`python -m python_ops` is `lakeops`."""

from python_ops.cli import main

main()
