"""The jobs. Each does one thing; none imports another."""
