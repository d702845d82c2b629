"""The package's version, in one place; packaging reads it without importing anything."""

__version__ = "0.1.0"
