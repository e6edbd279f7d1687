"""Training pictures: read, downscale, compress, cut into patches."""
