"""Encoding and decoding of RTMP, shared by input (server) and output (client)."""
