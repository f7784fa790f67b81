"""A run in a process of its own: `python -m tests.training.runner SETTINGS.json [resume]`."""

from __future__ import annotations

import sys

import torch

from i2vgen_ms.training import Trainer, read

if __name__ == "__main__":
    torch.set_num_threads(1)
    Trainer(read(sys.argv[1]), device="cpu", resume="resume" in sys.argv, progress=False).train()
