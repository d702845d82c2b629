"""What landmarks become: aligned crops, files for whole folders, drawings, plots."""
