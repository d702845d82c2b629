"""Large sets of photos on one machine or many, with Ray Data; results as a folder of Parquet files."""

from face_landmarks.output.cluster.dataset import align_dataset as align_dataset
