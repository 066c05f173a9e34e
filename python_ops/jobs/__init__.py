"""The jobs: each does one thing, and none knows another."""
