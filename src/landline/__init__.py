"""Landline: a Direct Line 3.0 channel that people run themselves."""

__version__ = "0.1.0"
