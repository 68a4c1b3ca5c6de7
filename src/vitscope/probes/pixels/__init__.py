"""Sums over the pixels between patches.

In a folder of their own: compiled code is kept until a file of its folder changes.
"""
