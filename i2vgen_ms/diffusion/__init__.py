"""Noise schedules, spacings, guidance and samplers.

Everything here works on the variance-preserving state `x = a x0 + s eps` with `a^2 + s^2 = 1`, and names a noise level
by `sigma = s / a`, which runs from 0 (data) to infinity (pure noise, zero terminal SNR). Nothing here knows a network,
a picture or a prompt.
"""
