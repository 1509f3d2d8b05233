"""Network-boot trees from catalyst's livecd-stage2 builds."""

__version__ = "0.1.0"
