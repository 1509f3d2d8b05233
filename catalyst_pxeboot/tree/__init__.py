"""Files on disk: staging, manifest, signatures, publication, verification."""
