"""Private helpers: devices, forked processes, files, optional dependencies."""
