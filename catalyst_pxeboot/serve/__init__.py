"""Serves a netboot tree by real servers: what will run, their configurations, and their logs."""
