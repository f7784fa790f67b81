"""The import hook: what importing costs, the published names, running scripts, and the order of imports."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from i2vgen_ms import activation, plugin
from tests.oracle import published
from tests.plugin.conftest import MODEL, REVISION
from tests.plugin.loopback_hub import LoopbackHub

ROOT = Path(__file__).resolve().parents[2]

IMPORTS = """
from modelscope.pipelines import pipeline
from modelscope.outputs import OutputKeys
"""
CARD = f"""
pipe = pipeline(task='image-to-video', model='{MODEL}', model_revision='{REVISION}', device='cuda:0')
output_video_path = pipe(IMG_PATH, output_video='./output.mp4')[OutputKeys.OUTPUT_VIDEO]
print(output_video_path)
"""


def run(*arguments, cwd, **variables):
    """A fresh interpreter; `variables` on top of the environment, quiet modelscope excepted."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_importing_is_silent_and_light(tmp_path):
    code = "import i2vgen_ms, sys; print(sorted({'torch', 'modelscope', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = run("-W", "error", "-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


def test_load_is_there_when_asked_for():
    import i2vgen_ms
    from i2vgen_ms.pipelines import load

    assert i2vgen_ms.load is load
    assert {"load", "__version__"} <= set(dir(i2vgen_ms))
    with pytest.raises(AttributeError, match="laod"):
        i2vgen_ms.laod  # noqa: B018


def test_activating_again_changes_nothing(modelscope):
    finders, code = list(sys.meta_path), modelscope.pipeline.__code__
    activation.activate()
    assert (sys.meta_path, modelscope.pipeline.__code__) == (finders, code)


def test_the_class_index_and_the_task_tables(modelscope):
    from modelscope.outputs import TASK_OUTPUTS
    from modelscope.pipeline_inputs import TASK_INPUTS
    from modelscope.pipelines.builder import get_default_pipeline_info
    from modelscope.utils.import_utils import INDEX_KEY, MODULE_KEY, REQUIREMENT_KEY, LazyImportModule

    assert not set(activation.DOTTED_NAMES) & set(LazyImportModule.get_ast_index()[REQUIREMENT_KEY])
    index = LazyImportModule.get_ast_index()[INDEX_KEY]
    assert {index[signature][MODULE_KEY] for signature in activation.SIGNATURES} == {"i2vgen_ms.plugin"}
    assert TASK_INPUTS["image-to-video"] == "image"
    assert TASK_OUTPUTS["video-to-video"] == ["output_video"]
    assert get_default_pipeline_info("image-to-video") == ("image-to-video-task-pipeline", "damo/Image-to-Video")


def test_the_class_index_of_older_versions():
    index = {"index": {}, "requirements": {"modelscope.pipelines.multi_modal.image_to_video_pipeline": ["cv2"]}}
    keys = {"INDEX_KEY": "index", "MODULE_KEY": "module", "REQUIREMENT_KEY": "requirements"}
    activation._change_index(SimpleNamespace(LazyImportModule=SimpleNamespace(AST_INDEX=index), **keys))
    modules = {signature: entry["module"] for signature, entry in index["index"].items()}
    assert modules == {
        **dict.fromkeys(activation.SIGNATURES, "i2vgen_ms.plugin"),
        **dict.fromkeys(activation.TRAINER_SIGNATURES, "i2vgen_ms.plugin.trainer"),
    }
    assert index["requirements"] == {}


def test_the_signature_of_pipeline_stays(modelscope):
    assert list(inspect.signature(modelscope.pipeline).parameters)[:3] == ["task", "model", "preprocessor"]
    assert "Factory method" in modelscope.pipeline.__doc__


@pytest.mark.parametrize(("name", "attribute"), activation.DOTTED_NAMES.items())
def test_published_names_are_ours(modelscope, name, attribute):
    module = __import__(name, fromlist=[attribute])
    assert getattr(module, attribute) is getattr(plugin, attribute)
    assert module.__all__ == [attribute]
    with pytest.raises(AttributeError, match="nothing_else"):
        module.nothing_else  # noqa: B018


def test_what_lies_below_the_published_names_stays(modelscope):
    for name in ("image_to_video.modules.unet_i2v", "video_to_video.modules.unet_v2v"):
        assert published(name).__file__.endswith(name.replace(".", os.sep) + ".py")


def test_run_script_is_what_python_does(tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "beside.py").write_text("value = 7")
    (folder / "script.py").write_text(
        "import sys, beside, os\n"
        "print(__name__, sys.argv, sys.path[0], beside.value, __file__, os.getcwd())\n"
        "print('i2vgen_ms' in sys.modules, sys.modules['__main__'].beside is beside, file=sys.stderr)\n"
        "sys.exit(int(sys.argv[2]))\n"
    )
    plain = run(folder / "script.py", "--seed", "3", cwd=tmp_path)
    ours = run("-m", "i2vgen_ms", "run", folder / "script.py", "--seed", "3", cwd=tmp_path)
    assert (ours.stdout, ours.returncode) == (plain.stdout, plain.returncode)
    assert (plain.returncode, plain.stderr, ours.stderr) == (3, "False True\n", "True True\n")


def test_run_script_restores_what_it_changed(tmp_path):
    (tmp_path / "script.py").write_text("import sys\nsys.path.append('x')\nraise KeyError(sys.argv[1])")
    argv, search = sys.argv, list(sys.path)
    with pytest.raises(KeyError, match="word"):
        activation.run_script(tmp_path / "script.py", ["word"])
    assert (sys.argv, sys.path) == (argv, search)


def test_the_models_cards_script(origin, picture, tmp_path):
    """With the import line (after the others) against a hub; then unchanged, through the command, the hub gone."""
    picture_line = f"IMG_PATH = {picture!r}\n"
    (tmp_path / "with_import.py").write_text(IMPORTS + "import i2vgen_ms\n" + picture_line + CARD)
    (tmp_path / "unchanged.py").write_text(IMPORTS + picture_line + CARD)
    with LoopbackHub({(MODEL, REVISION): origin}) as server:
        variables = server.environment(tmp_path / "cache")
        first = run("with_import.py", cwd=tmp_path, **variables)
        assert sum("FilePath=" in line for line in server.log) == len(list(origin.iterdir()))
    assert (first.returncode, first.stdout) == (0, "./output.mp4\n"), first.stderr
    assert first.stderr.count("DeviceWarning") == 1
    assert "WARNING" not in first.stderr
    video = (tmp_path / "output.mp4").read_bytes()
    (tmp_path / "output.mp4").unlink()
    second = run("-m", "i2vgen_ms", "run", "unchanged.py", cwd=tmp_path, **variables)
    assert (second.returncode, second.stdout) == (0, "./output.mp4\n"), second.stderr
    assert (tmp_path / "output.mp4").read_bytes() == video


CHECK = """
from i2vgen_ms import plugin
from modelscope.models import Model
pipe = pipeline(task='image-to-video', model=FOLDER, device='cpu')
assert type(pipe) is plugin.ImageToVideoPipeline, type(pipe)
assert type(Model.from_pretrained(FOLDER)) is plugin.ImageToVideo
from modelscope.pipelines.multi_modal.image_to_video_pipeline import ImageToVideoPipeline
from modelscope.models.multi_modal.image_to_video import ImageToVideo
from modelscope.models.multi_modal.image_to_video.image_to_video_model import ImageToVideo as Again
assert ImageToVideoPipeline is plugin.ImageToVideoPipeline
assert ImageToVideo is Again is plugin.ImageToVideo
import modelscope.models.multi_modal.image_to_video.utils.transforms as transforms
assert transforms.CenterCropWide
"""
PUBLISHED_FIRST = """
from modelscope.pipelines import pipeline
import modelscope.models.multi_modal.image_to_video as held
from modelscope.pipelines.multi_modal.image_to_video_pipeline import ImageToVideoPipeline as Published
import i2vgen_ms
from i2vgen_ms import plugin
assert Published is not plugin.ImageToVideoPipeline
assert held.ImageToVideo is plugin.ImageToVideo
"""


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(PUBLISHED_FIRST, id="the published classes first", marks=pytest.mark.full),
        pytest.param("import i2vgen_ms; from modelscope.pipelines import pipeline", id="ours", marks=pytest.mark.full),
        pytest.param(
            "import modelscope, i2vgen_ms; from modelscope.pipelines import pipeline",
            id="modelscope",
            marks=pytest.mark.full,
        ),
        pytest.param(
            "import modelscope.pipelines, i2vgen_ms; from modelscope.pipelines import pipeline",
            id="modelscope.pipelines",
            marks=pytest.mark.full,
        ),
        pytest.param(
            "from modelscope.pipelines import pipeline; import i2vgen_ms", id="pipeline", marks=pytest.mark.full
        ),
        pytest.param(
            "import i2vgen_ms\n"
            "from modelscope.pipelines.multi_modal.image_to_video_pipeline import ImageToVideoPipeline\n"
            "from modelscope.pipelines import pipeline",
            id="ours, then the published names",
            marks=pytest.mark.full,
        ),
    ],
)
def test_any_order_of_imports(first, origin, tmp_path):
    done = run("-c", f"FOLDER = {str(origin)!r}\n{first}\n{CHECK}\nprint('done')", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert "WARNING" not in done.stderr
