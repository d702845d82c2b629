"""Reports: pages that show every face with its landmarks, the least sure or the worst first."""

from face_landmarks.reports.results import write_report as write_report
