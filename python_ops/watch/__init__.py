"""The observers. They report, and change no table."""
