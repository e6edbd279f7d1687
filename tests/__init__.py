"""Tests on clips made by code, real engines and, where VSR_DATA names them, real films."""
