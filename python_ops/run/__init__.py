"""What runs several jobs in turn."""
