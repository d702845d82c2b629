"""The training recipe: data, augmentation, losses and the loop (`python -m face_landmarks.training`)."""
