"""RTMP's encodings, for both of its ends."""
