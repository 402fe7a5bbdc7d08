"""Measurements. Not part of any test run: `make bench`."""
