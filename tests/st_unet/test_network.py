"""The one network against the published networks of the family, their weights through our names."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import SDPBackend

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.st_unet.temporal import RotaryTemporalBlock
from i2vgen_ms.tensors import attention
from i2vgen_ms.tensors.ops import Ops
from tests.oracle import published, randomise, relative_error
from tests.st_unet import networks
from tests.st_unet.networks import PUBLISHED_SMALL, ROTARY, latents, small_layout, temporal_choice

TIMES = torch.tensor([981, 3])
FPS = torch.tensor([8, 7])


@pytest.fixture(scope="module")
def vector() -> torch.Tensor:
    return torch.randn(2, 1, 1024, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    return torch.randn(2, 7, 1024, generator=torch.Generator().manual_seed(6))


@pytest.fixture(scope="module")
def image_pair():
    theirs = networks.image_to_video()
    mine = networks.with_weights_of(
        theirs, networks.ours("image-vector", fps_embedding=True), small_layout("image-vector")
    )
    return theirs, mine


@pytest.mark.parametrize("frames", [1, 3])
@torch.no_grad()
def test_image_to_video_equals_published(image_pair, vector, frames) -> None:
    theirs, mine = image_pair
    x = latents(frames=frames)
    assert relative_error(mine(x, TIMES, image=vector, fps=FPS), theirs(x, TIMES, vector, fps=FPS)) <= 1e-5


@torch.no_grad()
def test_video_to_video_equals_published(text) -> None:
    unet = published("video_to_video.modules.unet_v2v").Vid2VidSDUNet
    theirs = randomise(unet(**PUBLISHED_SMALL, use_checkpoint=False))
    mine = networks.with_weights_of(theirs, networks.ours("text", vertical_padding=[2, 1]), small_layout("text"))
    x = latents(height=10)
    assert relative_error(mine(x, TIMES, text=text), theirs(x, TIMES, text)) <= 1e-5


@torch.no_grad()
def test_text_to_video_equals_published(text) -> None:
    unet = published("video_synthesis.unet_sd").UNetSD
    theirs = randomise(unet(**PUBLISHED_SMALL, use_fps_condition=True))
    mine = networks.with_weights_of(theirs, networks.ours("text", fps_embedding=True), small_layout("text"))
    x = latents()
    assert relative_error(mine(x, TIMES, text=text, fps=FPS), theirs(x, TIMES, text, fps=FPS)) <= 1e-5


@pytest.mark.parametrize("temporal", ["transformer", "rotary"])
@torch.no_grad()
def test_video_composer_equals_published(text, vector, temporal, monkeypatch) -> None:
    """Extra input channels, text and image context, and both kinds of temporal block."""
    module = published("videocomposer.unet_sd")
    monkeypatch.setattr(module, "USE_TEMPORAL_TRANSFORMER", temporal == "transformer")
    # Rotary heads are channels / heads wide, and have to hold the rotated channels.
    head = 4 if temporal == "rotary" else 16
    composer = module.UNetSD_temporal(
        SimpleNamespace(resume=True),
        **PUBLISHED_SMALL | {"head_dim": head},
        concat_dim=8,
        training=False,
        video_compositions=["mask"],
    )
    theirs = randomise(composer)
    choice = temporal_choice(RotaryTemporalBlock, **ROTARY) if temporal == "rotary" else temporal_choice()
    if temporal == "rotary":
        _keep_rotary_frequencies(theirs)
    mine = networks.ours("text-and-image", extra_channels=8, temporal=choice, head_channels=head)
    layout = small_layout("text-and-image", rotary_repeats=1 if temporal == "rotary" else 0)
    adapters = ("masked_embedding", "mask_embedding_after")
    core = {name: value for name, value in theirs.state_dict().items() if not name.startswith(adapters)}
    mine.load_state_dict(networks.translate(core, layout), strict=True, assign=True)

    extra = torch.randn(2, 8, 3, 8, 16, generator=torch.Generator().manual_seed(9))
    monkeypatch.setattr(theirs, "mask_embedding_after", torch.nn.Identity())
    monkeypatch.setattr(theirs, "masked_embedding", torch.nn.Identity())
    expected = theirs(latents(), TIMES, y=text, image=vector, masked=extra)
    got = mine(latents(), TIMES, text=text, image=vector, extra=extra)
    assert relative_error(got, expected) <= 1e-5


def _keep_rotary_frequencies(theirs: torch.nn.Module) -> None:
    # Random frequencies would make angles without meaning; any value must be taken from the file all the same.
    with torch.no_grad():
        theirs.rotary_emb.freqs.copy_(torch.tensor([1.0, 0.02]))


@torch.no_grad()
def test_rotary_attention_leaves_the_kernel_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written out it would keep every score, in fp32."""
    functional = torch.nn.functional
    attend, chosen = functional.scaled_dot_product_attention, list[int]()

    def noted(*given: torch.Tensor, **options: torch.Tensor) -> torch.Tensor:
        chosen.append(torch._fused_sdp_choice(*given, **options))
        return attend(*given, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", noted)
    options = {**ROTARY, "repeats": 2}
    block = RotaryTemporalBlock(channels=32, heads=4, head_channels=8, norm_groups=32, ops=Ops(), **options)
    block(torch.randn(2, 5, 3, 4, 32), RotaryTemporalBlock.shared_part(heads=4, head_channels=8, **options)(5))
    assert len(chosen) == 2
    assert int(SDPBackend.MATH.value) not in chosen


@torch.no_grad()
def test_rotary_block_equals_published() -> None:
    module = published("image_to_video.modules.unet_i2v")
    rotary = module.RotaryEmbedding(8)
    theirs = randomise(module.TemporalAttentionMultiBlock(32, 4, 8, rotary_emb=rotary, temporal_attn_times=2))
    bias = randomise(module.RelativePositionBias(heads=4, max_distance=32))
    options = {**ROTARY, "rotary_channels": 8, "repeats": 2}
    block = RotaryTemporalBlock(channels=32, heads=4, head_channels=8, norm_groups=32, ops=Ops(), **options)
    shared = RotaryTemporalBlock.shared_part(heads=4, head_channels=8, **options)
    shared.frequencies.copy_(rotary.freqs)
    shared.bias.weight.copy_(bias.relative_attention_bias.weight)
    names = {name.replace("att_layers", "layers"): value for name, value in theirs.state_dict().items()}
    block.load_state_dict({name: value for name, value in names.items() if "rotary_emb" not in name})
    x = torch.randn(2, 32, 37, 3, 2, generator=torch.Generator().manual_seed(3))
    expected = theirs(x, pos_bias=bias(37, device=x.device))
    got = block(x.permute(0, 2, 3, 4, 1).contiguous(), shared(37)).permute(0, 4, 1, 2, 3)
    assert relative_error(got, expected) <= 1e-5


def _unused_tensors(network: torch.nn.Module, x: torch.Tensor, **conditions: torch.Tensor) -> list[str]:
    reference = network(x, TIMES[:1], **conditions)
    unused = []
    for name, parameter in network.named_parameters():
        kept = parameter.data
        parameter.data = torch.zeros_like(kept)
        if torch.equal(network(x, TIMES[:1], **conditions), reference):
            unused.append(name)
        parameter.data = kept
    return unused


@pytest.mark.full
@torch.no_grad()
def test_every_published_tensor_matters(vector) -> None:
    """Zeroing any one tensor changes the output: none is loaded and unused. Two levels have every kind of tensor."""
    shape = {"multipliers": [1, 2], "residual_blocks": 1, "attention_levels": [0]}
    mine = randomise(networks.ours("image-vector", fps_embedding=True, device="cpu", **shape))
    x = latents(batch=1, frames=2, height=4, width=4)
    assert _unused_tensors(mine, x, image=vector[:1], fps=FPS[:1]) == []


@pytest.mark.full
@torch.no_grad()
def test_every_published_tensor_matters_on_all_levels(image_pair, vector) -> None:
    _, mine = image_pair
    # Wide enough for two places in the middle: attention over a single one does not depend on its queries and keys.
    x = latents(batch=1, frames=2, height=8, width=16)
    assert _unused_tensors(mine, x, image=vector[:1], fps=FPS[:1]) == []


@torch.no_grad()
def test_attention_backends_agree(image_pair, vector) -> None:
    theirs, mine = image_pair
    other = networks.ours("image-vector", fps_embedding=True, ops=Ops(attention=attention.math))
    networks.with_weights_of(theirs, other, small_layout("image-vector"))
    x = latents()
    expected = mine(x, TIMES, image=vector, fps=FPS)
    assert relative_error(other(x, TIMES, image=vector, fps=FPS), expected) <= 1e-5


@torch.no_grad()
def test_skipping_the_temporal_path_equals_the_published_image_training(vector) -> None:
    unet = published("image_to_video.modules.unet_i2v").Img2VidSDUNet
    theirs = unet(**PUBLISHED_SMALL, num_tokens=4, input_dim=1024, use_image_dataset=True)
    theirs = randomise(theirs)
    # published: the middle's last residual block is not told of image training; ours leaves all temporal work out.
    theirs.middle_block[3].temopral_conv.use_image_dataset = True
    mine = networks.with_weights_of(
        theirs, networks.ours("image-vector", fps_embedding=True), small_layout("image-vector")
    )
    x = latents(frames=1)
    got = mine(x, TIMES, image=vector, fps=FPS, skip_temporal=True)
    assert relative_error(got, theirs(x, TIMES, vector, fps=FPS)) <= 1e-5
    assert relative_error(mine(x, TIMES, image=vector, fps=FPS), got) > 1e-2


@torch.no_grad()
def test_frames_see_each_other_and_items_of_a_batch_do_not(image_pair, vector) -> None:
    _, mine = image_pair
    x = latents()
    reference = mine(x, TIMES, image=vector, fps=FPS)
    alone = mine(x[1:], TIMES[1:], image=vector[1:], fps=FPS[1:])
    assert relative_error(alone, reference[1:]) <= 1e-5
    x[0, :, 2] += 1
    changed = mine(x, TIMES, image=vector, fps=FPS)
    assert relative_error(changed[1], reference[1]) <= 1e-6
    assert relative_error(changed[0, :, 0], reference[0, :, 0]) > 1e-3


def test_wrong_inputs_are_explained(image_pair, vector) -> None:
    _, mine = image_pair
    with pytest.raises(ArgumentError, match=r"must be b 4 f h w, not \(2, 3"):
        mine(latents(channels=3), TIMES, image=vector, fps=FPS)
    with pytest.raises(ArgumentError, match=r"12x16 .*pad them"):
        mine(latents(height=12), TIMES, image=vector, fps=FPS)
    with pytest.raises(ArgumentError, match="give fps"):
        mine(latents(), TIMES, image=vector)
    with pytest.raises(ArgumentError, match="image vector"):
        mine(latents(), TIMES, fps=FPS)
    with pytest.raises(ArgumentError, match="0 extra input channels"):
        mine(latents(), TIMES, image=vector, fps=FPS, extra=latents())


@pytest.mark.parametrize(("padding", "sizes"), [([1, 1], {8, 16, 24, 32}), ([2, 1], {2, 10, 18, 26})])
def test_takes_says_which_heights_pass(padding, sizes) -> None:
    network = networks.ours("text", vertical_padding=padding)
    assert {height for height in range(1, 33) if network.takes(height, 16)} == sizes
    assert {width for width in range(1, 33) if network.takes(10 if padding[0] == 2 else 8, width)} == {8, 16, 24, 32}
