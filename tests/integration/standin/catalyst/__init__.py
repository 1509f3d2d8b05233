"""A stand-in for the few names of catalyst that the target uses, for machines without it.

It has their signatures and the behaviour that FACTS of catalyst 4 depend on: an error logs
itself when it is made, and keys that a target does not list are refused.
"""
