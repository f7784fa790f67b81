"""Tensor operations shared by the networks: the plain PyTorch definitions and the table they are handed in with."""
