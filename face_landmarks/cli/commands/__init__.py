"""The commands of `face-landmarks`, a module for each."""
