"""Samplers: from a noisy state down a list of noise levels, one generator each.

They see `denoise(x, sigma) -> x0` and a noise function, nothing else. The contract stands in sampler.py.
"""
