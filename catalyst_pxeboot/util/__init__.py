"""Errors, files, processes, checksums and text: what every other package may use."""
