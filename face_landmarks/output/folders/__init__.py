"""Many photos: whole folders and long lists, aligned by one or more processes into one file."""

from face_landmarks.output.folders.journal import FolderReport as FolderReport
from face_landmarks.output.folders.merge import MergeReport as MergeReport
from face_landmarks.output.folders.merge import merge_results as merge_results
from face_landmarks.output.folders.run import align_folder as align_folder
from face_landmarks.output.folders.run import align_list as align_list
