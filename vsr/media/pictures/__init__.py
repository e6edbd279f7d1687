"""Reads and writes single pictures, numbered pictures, folders of pictures, GIF and APNG."""
