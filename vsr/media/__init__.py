"""Read, describe and write media with FFmpeg (PyAV): frames, colour, time, sources, sinks."""
