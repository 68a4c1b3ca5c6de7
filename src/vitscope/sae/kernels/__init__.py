"""The batch-top-k training step on a GPU: Triton kernels where torch has none, no host in between.

Imported only where Triton is, and never by the CPU path, which is what all of it is tested against.
"""
