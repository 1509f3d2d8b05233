"""Stand-in for catalyst.base."""
