"""i2vgen_ms: image to video and video to video with the I2VGen-XL models, a drop-in for ModelScope's pipelines."""

__version__ = "0.1.0"
