"""Signs what a tree holds, and checks what was signed: a module for each kind of signature.

`openpgp` makes what people check by gpg and GRUB checks by itself, `cms` what iPXE checks,
`secureboot` what firmware checks. All look at the keys first, so that a build that cannot sign
fails before it has done any work. A message names the spec key, the key or the path that the user
wrote, never what a key holds.
"""
