"""Exact Earth Mover's Distance between maps on one grid, usable by itself."""
