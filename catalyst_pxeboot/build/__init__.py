"""The build pipeline, and what it reports."""
