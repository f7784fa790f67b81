"""How far a video is from the true one: brightness, structure, edges, change from frame to frame, sharpness.

Given videos `b f h w c` in [-1, 1] on any device, gives back one fp32 number a video, `b`. It does not know what made
them. No learned network is asked, so that the numbers mean the same for ever.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from i2vgen_ms.errors import ArgumentError

IDENTICAL_DB = 100.0  # what the PSNR of equal videos is called, instead of infinity
_WINDOW, _DEVIATION = 11, 1.5  # of SSIM's Gaussian
_K1, _K2 = 0.01, 0.03
_GRADIENT_CONSTANT = 170 / 255**2
_SCALE_WEIGHTS = (0.096, 0.596, 0.289, 0.019)
_STILL = 1 / 255  # a true pixel that changes by less stands still
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def psnr(video: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, of the mean squared error over all frames; equal videos have IDENTICAL_DB."""
    error = (_unit(video, truth) - _unit(truth, video)).square().mean((1, 2, 3, 4))
    return -10 * error.clamp(min=10 ** (-IDENTICAL_DB / 10)).log10()


def first_frame_psnr(video: Tensor, picture: Tensor) -> Tensor:
    """How far the first frame agrees with the picture `b h w c` that the video was made from, in dB."""
    return psnr(video[:, :1], picture[:, None])


def ssim(video: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of brightness, mean over places and frames; 1 for equal videos.

    Wang et al. 2004, "Image quality assessment": a Gaussian window of 11 pixels and deviation 1.5, only where it lies
    wholly within the frame. Frames need 11 pixels each way.
    """
    x, y = _planes(_luma(_unit(video, truth))), _planes(_luma(_unit(truth, video)))
    if min(x.shape[2:]) < _WINDOW:
        raise ArgumentError(f"SSIM needs frames of at least {_WINDOW}x{_WINDOW} pixels, not {x.shape[3]}x{x.shape[2]}")
    both = torch.cat([x, y, x * x, y * y, x * y], dim=1)
    mean_x, mean_y, square_x, square_y, product = _gaussian(both).unbind(1)
    variance_x, variance_y = square_x - mean_x * mean_x, square_y - mean_y * mean_y
    covariance = product - mean_x * mean_y
    first, second = _K1**2, _K2**2
    alike = (2 * mean_x * mean_y + first) * (2 * covariance + second)
    alike = alike / ((mean_x**2 + mean_y**2 + first) * (variance_x + variance_y + second))
    return alike.mean((1, 2)).unflatten(0, video.shape[:2]).mean(1)


def perceptual_distance(video: Tensor, truth: Tensor) -> Tensor:
    """How unevenly the strength of edges differs; 0 for equal videos, mean over frames and red, green and blue.

    Multi-scale gradient magnitude similarity deviation: the deviation over the places of how similar the gradients'
    magnitudes are (GMSD; Xue et al. 2014), at four scales (MS-GMSD; Zhang et al. 2017), here for each colour instead of
    their chrominance terms. It follows what people see nearly as well as learned distances do, and needs no weights.
    Frames need 24 pixels each way.
    """
    x, y = _planes(_unit(video, truth)), _planes(_unit(truth, video))
    if min(x.shape[2:]) < 3 * 2 ** (len(_SCALE_WEIGHTS) - 1):
        raise ArgumentError(f"the perceptual distance needs frames of at least 24x24 pixels, not {tuple(x.shape[2:])}")
    total = torch.zeros(x.shape[:2], device=x.device)
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        strong_x, strong_y = _gradient(x), _gradient(y)
        alike = (2 * strong_x * strong_y + _GRADIENT_CONSTANT) / (strong_x**2 + strong_y**2 + _GRADIENT_CONSTANT)
        total = total + weight * alike.var((2, 3), correction=0)
    return total.sqrt().mean(1).unflatten(0, video.shape[:2]).mean(1)


def temporal_error(video: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference of the changes from frame to frame from the true changes, of the range of 0 to 1."""
    return (_changes(_unit(video, truth)) - _changes(_unit(truth, video))).abs().mean((1, 2, 3, 4))


def flicker(video: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute change from frame to frame, of the range of 0 to 1, at places where the true video stands still.

    0 if the true video stands still nowhere.
    """
    still = (_changes(_unit(truth, video)).abs() < _STILL).all(-1)
    change = _changes(_unit(video, truth)).abs().mean(-1)
    return (change * still).sum((1, 2, 3)) / still.sum((1, 2, 3)).clamp(min=1)


def sharpness(video: Tensor, truth: Tensor) -> Tensor:
    """The variance of the brightness's Laplacian by that of the true video; 1: as sharp, less: blurred, more: noisy."""
    return _laplacian(_unit(video, truth)) / _laplacian(_unit(truth, video)).clamp(min=1e-12)


def _unit(video: Tensor, other: Tensor) -> Tensor:
    """Pixels in [0, 1]."""
    if video.shape != other.shape or video.ndim != 5 or video.shape[-1] != 3 or 0 in video.shape:
        raise ArgumentError(
            f"two videos `b f h w 3` of one shape are compared, not {tuple(video.shape)} and {tuple(other.shape)}"
        )
    return ((video.float() + 1) / 2).clamp(0, 1)


def _luma(pixels: Tensor) -> Tensor:
    """Brightness, `b f h w 1`."""
    return (pixels * torch.tensor(_LUMA, device=pixels.device)).sum(-1, keepdim=True)


def _planes(pixels: Tensor) -> Tensor:
    """Frames as pictures, `(b f) c h w`."""
    return pixels.flatten(0, 1).movedim(-1, 1)


def _gaussian(planes: Tensor) -> Tensor:
    """SSIM's window over each plane of `n c h w`, without the margins."""
    places = torch.arange(_WINDOW, device=planes.device) - _WINDOW // 2
    line = torch.exp(-(places**2) / (2 * _DEVIATION**2))
    line = line / line.sum()
    count = planes.shape[1]
    across = F.conv2d(planes, line.expand(count, 1, 1, _WINDOW), groups=count)
    return F.conv2d(across, line[:, None].expand(count, 1, _WINDOW, 1), groups=count)


def _gradient(planes: Tensor) -> Tensor:
    """The gradient's magnitude by Prewitt's filters, `n c h w`; edges are continued."""
    count = planes.shape[1]
    filter_x = torch.tensor([1.0, 0.0, -1.0], device=planes.device).expand(3, 3) / 3
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    x = F.conv2d(padded, filter_x.expand(count, 1, 3, 3), groups=count)
    y = F.conv2d(padded, filter_x.T.expand(count, 1, 3, 3), groups=count)
    return (x * x + y * y).sqrt()


def _changes(pixels: Tensor) -> Tensor:
    if pixels.shape[1] < 2:
        raise ArgumentError("changes from frame to frame need at least two frames")
    return pixels[:, 1:] - pixels[:, :-1]


def _laplacian(pixels: Tensor) -> Tensor:
    """The variance of the Laplacian of the brightness, mean over frames, `b`."""
    grey = _planes(_luma(pixels))
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]], device=grey.device)
    return F.conv2d(grey, kernel[None, None]).var((1, 2, 3), correction=0).unflatten(0, pixels.shape[:2]).mean(1)
