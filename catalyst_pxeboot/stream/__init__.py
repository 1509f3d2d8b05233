"""What streams a stock image's root: programs of the build host, drivers of the image."""
