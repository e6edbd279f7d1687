"""Tests of vsr and train on clips made by code, real engines and, where VSR_DATA names it, real data."""
