"""Fused operations in Triton for CUDA devices; each file has one, and its definition stands in tensors/ops.py.

For inference alone: they have no backward. This package may be imported only where Triton is.
"""
