"""Pictures and videos: bytes in and out of the package, and nothing else.

Everything here works on uint8 `h w c` RGB arrays. It knows no network, no latents and no configuration file.
"""
