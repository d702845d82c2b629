"""The demo: a page on this machine that shows landmarks on a camera's picture or a photo."""
