"""Attacks by kind: what an attacker may write, and the outcome that it must have.

Each class is a kind. `make fuzz` prints how many attacks each kind has.
"""

from __future__ import annotations

# --- signed trees: whoever writes the tree holds no key ---


# --- initramfs images: cost in time and memory ---


# --- images, sums files and keyrings that are not files, or are huge ---


# --- texts that reach the terminal ---


# --- texts that reach rendered menus, pages and scripts ---


# --- serve: the machine's other users, and clients ---


# --- templates of the user ---


# --- the machine: folders, memory and rights that are missing ---
