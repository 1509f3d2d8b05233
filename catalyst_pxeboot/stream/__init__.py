"""The initrd that streams a stock image's root: programs of the build host, drivers of the image."""
