"""The embedded dataset: synthetic scenes, drawn deterministically, and their files in a cache."""
