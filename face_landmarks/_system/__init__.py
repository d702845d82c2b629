"""What the package needs of the machine: devices, processes, files, optional dependencies; private."""
