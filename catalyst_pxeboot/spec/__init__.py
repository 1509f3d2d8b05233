"""What was asked for: spec files, keys and their values."""
