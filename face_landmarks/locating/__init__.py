"""From a photo and face boxes to landmarks: crop, network, decode, way back."""
