"""The landmark networks, their model cards, and how their weights arrive."""
