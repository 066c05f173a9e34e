"""The ground: what every job stands on."""
