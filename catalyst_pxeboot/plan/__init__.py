"""Spec, source and loader binaries become a plan. Pure: no disk, clock or environment."""
