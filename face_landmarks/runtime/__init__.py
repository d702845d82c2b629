"""Landmark networks outside torch: the ONNX file, ONNX Runtime, OpenVINO."""
