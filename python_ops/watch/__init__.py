"""The observers: they look and tell, and change no table."""
