"""`python -m face_landmarks` is the command `face-landmarks`."""

import sys

from face_landmarks.cli import main

if __name__ == "__main__":
    sys.exit(main())
