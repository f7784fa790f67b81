"""The page as ModelScope studios and Hugging Face spaces start it: `python app.py`, with `i2vgen_ms[app]` installed.

Their machines set GRADIO_SERVER_NAME and GRADIO_SERVER_PORT; anywhere else it is http://127.0.0.1:7860.
"""

from i2vgen_ms.app import build, launch

# The bundled small models. For the published ones (a GPU, and 11 GB of weights):
# build("damo/Image-to-Video", "damo/Video-to-Video", first_revision="v1.1.0", second_revision="v1.1.0")
demo = build()

if __name__ == "__main__":
    launch(demo)
