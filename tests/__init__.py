"""Tests on generated clips, shipped engines and, if VSR_DATA is set, real images and films."""
