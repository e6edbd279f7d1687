"""Read training pictures, downscale and compress them, and cut them into patches."""
