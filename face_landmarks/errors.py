"""The errors that this package raises.

FaceLandmarksError
├── InputError (ValueError)              an argument of the wrong type, shape, range or value
│   ├── ImageError                       an image that cannot be read, or whose range is ambiguous
│   └── AnnotationError                  a landmark file that is damaged or of another layout
├── UnknownModelError (KeyError)         no model of this name
├── WeightsError (OSError)               weights that are missing, damaged, or not this model's
│   ├── DownloadError                    no server sent the file, or FACE_LANDMARKS_OFFLINE is set
│   ├── CacheError                       the cache folder cannot be read or written
│   ├── ChecksumError                    a file is not the one its card describes
│   └── WeightsFormatError               a file or card that cannot be read, or is not of this network
├── WriteError (OSError)                 a file or folder that cannot be written
├── DetectorError (RuntimeError)         a face detector that did not return boxes and scores
├── WorkerError (RuntimeError)           a worker process that does not start, or dies at a photo each time
├── ExportError (RuntimeError)           a network that cannot be exported, or whose file differs
├── TrainingError (RuntimeError)         a training run whose loss or predictions are no longer finite
└── MissingDependencyError (ImportError) an optional package is needed and not installed
"""

from __future__ import annotations


class FaceLandmarksError(Exception):
    """Base of every error raised by face_landmarks."""


class InputError(FaceLandmarksError, ValueError):
    """An argument has the wrong type, shape, range or value."""


class ImageError(InputError):
    """An image is missing, damaged or empty, or its values have an ambiguous range."""


class AnnotationError(InputError):
    """A landmark file is missing, damaged, or has another number of points."""


class UnknownModelError(FaceLandmarksError, KeyError):
    """The model's name is not in the registry."""

    def __str__(self) -> str:  # KeyError would show the repr of its message
        return str(self.args[0]) if self.args else ""


class WeightsError(FaceLandmarksError, OSError):
    """A weights file is missing, damaged, or does not fit the network of its card."""


class DownloadError(WeightsError):
    """No server sent the file, or FACE_LANDMARKS_OFFLINE is set."""


class CacheError(WeightsError):
    """The cache folder cannot be read or written: no permission, a full disk, a lock held elsewhere."""


class ChecksumError(WeightsError):
    """A weights file has another size or SHA-256 than its card says."""


class WeightsFormatError(WeightsError):
    """A weights file or model card is not of a known format, or does not fit its network."""


class WriteError(FaceLandmarksError, OSError):
    """A file or folder cannot be written: no such folder, no permission, a full disk."""


class DetectorError(FaceLandmarksError, RuntimeError):
    """A face detector returned something that is not boxes and scores."""


class WorkerError(FaceLandmarksError, RuntimeError):
    """Worker processes end before they are ready, or each time that they are given a photo."""


class ExportError(FaceLandmarksError, RuntimeError):
    """A network cannot be exported, or the exported file does not reproduce its output."""


class TrainingError(FaceLandmarksError, RuntimeError):
    """A training run has diverged: its loss, gradients or predictions are no longer finite numbers."""


class MissingDependencyError(FaceLandmarksError, ImportError):
    """An optional dependency is not installed; the message names the extra that installs it."""
