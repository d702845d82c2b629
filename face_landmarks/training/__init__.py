"""The training recipe: data, augmentation, losses and the loop, run by `python -m face_landmarks.training`."""
