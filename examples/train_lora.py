"""Teaches the small first stage a shape that it has never seen, with a low-rank adapter, and uses that.

    pip install '.[train]'
    python examples/train_lora.py

takes a few steps, enough to see that it runs and too few to learn from; `--steps 2000 --clips 16` wants a GPU.
The clips are drawn as they are needed, by the procedural world of `i2vgen_ms.world`; for videos of your own see
docs/training.md. What is made: runs/hearts/lora (in peft's format), plain.mp4 and hearts.mp4.
"""

import argparse

from i2vgen_ms import load
from i2vgen_ms.media.frames import to_uint8
from i2vgen_ms.training import Trainer, read
from i2vgen_ms.world import Variety, draw, render

parser = argparse.ArgumentParser(description="A low-rank adapter for hearts.")
parser.add_argument("--steps", type=int, default=20, help="of training (20)")
parser.add_argument("--clips", type=int, default=2, help="in a batch (2)")
parser.add_argument("--device", help="cpu, cuda, ...; the best one there is without it")
parser.add_argument("--output", default="runs/hearts", help="the folder of the run (runs/hearts)")
parser.add_argument("--sampling-steps", type=int, help="of the videos; the model's own without it")
options = parser.parse_args()

# The settings of the model's own training, with what is different here.
changes = {
    "output": options.output,
    "weights": {"encoder": "model", "st_unet": "model", "autoencoder": "model"},
    "lora": {"rank": 8, "alpha": 8, "dropout": 0.0, "targets": ["to_q", "to_k", "to_v", "to_out"]},
    "data.shapes": ["heart"],
    "data.pool": None,  # which is for long runs: its clips are all made at the beginning
    "data.workers": 0,
    "length": {"steps": options.steps, "minutes": None},
    "batch": {"clips": options.clips, "pictures": 4 * options.clips, "accumulation": 1},
    "ema": 0.0,  # an average over so few steps would be the beginning
    "numerics.train": "no",
    "validation.times": 0,
    "log.every": 5,
}
made = Trainer(read("small-image-to-video", changes), device=options.device).train()
print(made)

scene = draw(1, 0, split="held-out", aspect=2, variety=Variety(shapes=("heart",)))
picture = to_uint8(render([scene], frames=1, width=128, height=64)[0, 0])
for name, lora in (("plain.mp4", None), ("hearts.mp4", made)):
    pipe = load("i2vgen-ms/small-image-to-video", device=options.device, lora=lora)
    # arrays are blue first, as cv2.imread gives them
    print(pipe(picture[..., ::-1], output=name, seed=1, steps=options.sampling_steps).path)
