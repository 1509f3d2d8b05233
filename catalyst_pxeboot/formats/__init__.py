"""Readers of one file format each; they know nothing of catalyst or of network boot."""
