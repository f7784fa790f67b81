"""A sampler of one's own: a class, and one line of pyproject.toml that gives it a name.

    pip install ./examples/own_sampler
    i2vgen-ms parts samplers
    python examples/own_sampler/own_sampler.py PICTURE

Wherever a sampler is chosen it is `adams_bashforth` now: in a call, on the command line, in configuration.json.
"""

import math

from i2vgen_ms.diffusion.samplers.sampler import Step, intervals


class AdamsBashforth:
    """Second order multistep on the probability flow in sigma: one evaluation a step, and the last slope remembered."""

    order = 2  # of convergence
    noise = "none"  # of the kinds none, independent, brownian
    discard_penultimate = False  # whether the grid leaves out the level before 0

    def __init__(self, *, memory: float = 1.0) -> None:
        self.memory = memory  # 0 forgets the last slope, which is Euler's method

    def __call__(self, denoise, x, sigmas, noise):
        pairs, last, last_slope = intervals(sigmas), math.inf, 0.0
        for index, (sigma, sigma_next) in enumerate(pairs):
            x0 = denoise(x, sigma)
            # x is scaled to unit variance; at infinity it is the noise itself
            slope = x if sigma == math.inf else (x * math.hypot(1, sigma) - x0) / sigma
            bend = self.memory * (sigma_next - sigma) ** 2 / (sigma - last) / 2 if sigma < last < math.inf else 0.0
            x = (x0 + sigma_next * slope + bend * (slope - last_slope)) / math.hypot(1, sigma_next)
            last, last_slope = sigma, slope
            yield Step(index, len(pairs), sigma_next, x, x0)


if __name__ == "__main__":
    import sys

    from i2vgen_ms import load

    pipe = load("i2vgen-ms/small-image-to-video")
    print(pipe(sys.argv[1], output="own.mp4", sampler={"type": "adams_bashforth", "memory": 0.9}, steps=8).path)
