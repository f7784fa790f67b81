"""The two pipelines of the model cards, one after the other, through ModelScope.

    python examples/card_script.py PICTURE "what the video shows"

runs the bundled small models on any machine; with `damo/Image-to-Video damo/Video-to-Video --revision v1.1.0
--device cuda:0` as further arguments, the published ones. A picture to try: configuration/pictures/growing.png.
"""

import argparse

from modelscope.outputs import OutputKeys
from modelscope.pipelines import pipeline

import i2vgen_ms  # noqa: F401  (the only line that the cards' scripts do not have)

parser = argparse.ArgumentParser(description="A picture becomes a video in two stages, with ModelScope.")
parser.add_argument("picture")
parser.add_argument("text")
parser.add_argument("first", nargs="?", default="i2vgen-ms/small-image-to-video")
parser.add_argument("second", nargs="?", default="i2vgen-ms/small-video-to-video")
parser.add_argument("--revision", help="of both models on the hub")
parser.add_argument("--device", default="cpu")
parser.add_argument("--steps", type=int, help="of both samplers; the models' own without it")
options = parser.parse_args()
model = {"model_revision": options.revision, "device": options.device}

pipe1 = pipeline(task="image-to-video", model=options.first, **model)
small = pipe1(options.picture, output_video="i2v_output.mp4", steps=options.steps)[OutputKeys.OUTPUT_VIDEO]
print(small)

pipe2 = pipeline(task="video-to-video", model=options.second, **model)
p_input = {"video_path": small, "text": options.text}
large = pipe2(p_input, output_video="v2v_output.mp4", steps=options.steps)[OutputKeys.OUTPUT_VIDEO]
print(large)
