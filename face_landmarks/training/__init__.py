"""The training recipe: data, augmentation, losses and the loop (`face-landmarks train`)."""
