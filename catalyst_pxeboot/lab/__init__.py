"""The lab: boots a netboot tree in QEMU, as a client on a network would."""
