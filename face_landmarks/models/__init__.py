"""The landmark networks, their model cards, and how their weights are loaded and downloaded."""
