"""Reads and writes single images, numbered image files, folders of images, GIF and APNG."""
