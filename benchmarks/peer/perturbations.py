"""The perturbations of `augment.py` in PyTorch, on the device, for whole batches.

The published code perturbs one picture at a time with Pillow in the data loader; this
does the same on f32[B, 3, H, W] in 0..255. Only images that are chosen are equalised.
"""

import random

import torch
from torch.nn import functional as F

CELLS = 32  # along a side of the shadow pattern


def strong(x):
    """The colour chain of strong target views and mixed images."""
    x = jitter(x, (0.4, 1.2), (0.4, 2.0), (0.5, 2.0))
    x = sharpness(x, draw(x, 0.4, 2.0))
    x = shadow_noise_blur(x, (3, 4))
    chosen = [i for i in range(len(x)) if random.random() < 0.3]
    for i in chosen:
        x[i] = equalize(x[i])
    return x


def source(x):
    """The colour chain of source images."""
    return shadow_noise_blur(jitter(x, (0.5, 1.5), (0.5, 1.5), (0.5, 1.5)), (0, 5))


def jitter(x, brightness, contrast, saturation):
    """Brightness, contrast, saturation, clipped after each."""
    x = torch.clamp(x * draw(x, *brightness), 0, 255)
    x = blend(grey(x).mean((1, 2, 3), keepdim=True), x, draw(x, *contrast))
    return blend(grey(x), x, draw(x, *saturation))


def sharpness(x, factor):
    """Blends with [1 1 1; 1 5 1; 1 1 1] / 13; the border stays as it is."""
    smooth = x.clone()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.copy_((9 * F.avg_pool2d(x, 3, 1) + 4 * inner) / 13)
    return blend(smooth, x, factor)


def shadow_noise_blur(x, noise):
    """A random smooth shadow, white noise and a Gaussian blur."""
    batch, channels, height, width = x.shape
    side = 0.02 + 0.48 * torch.rand(batch, 2, device=x.device)
    low = torch.rand(batch, 2, device=x.device) * (1 - side)
    theta = torch.zeros(batch, 2, 3, device=x.device)
    theta[:, 0, 0], theta[:, 1, 1] = side[:, 0], side[:, 1]
    theta[:, :, 2] = 2 * low + side - 1
    grid = F.affine_grid(theta, [batch, 1, height, width], align_corners=True)
    cells = torch.rand(batch, 1, CELLS, CELLS, device=x.device)
    pattern = F.grid_sample(cells, grid, align_corners=True)
    x = x * (1 - draw(x, 0.01, 0.3) * pattern)
    deviation = torch.floor(draw(x, noise[0], noise[1] + 1))
    x = torch.clamp(x + deviation * torch.randn_like(x), 0, 255)
    sigma, radius = draw(x, 0.0, 1.2), 4
    offsets = torch.arange(-radius, radius + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)) ** 2)
    kernel = (kernel / kernel.sum(-1, keepdim=True)).repeat_interleave(channels, 0)
    x = F.pad(x, [radius] * 4, mode="reflect")
    x = x.reshape(1, batch * channels, *x.shape[2:])
    x = F.conv2d(x, kernel, groups=batch * channels)
    x = F.conv2d(x, kernel.transpose(2, 3), groups=batch * channels)
    return x.reshape(batch, channels, height, width)


def equalize(image):
    """Histogram equalisation of f32[3, H, W] as Pillow does it."""
    levels = image.clamp(0, 255).round().long()
    planes = levels.flatten(1)
    counts = torch.zeros(3, 256, dtype=torch.long, device=image.device)
    counts.scatter_add_(1, planes, torch.ones_like(planes))
    every = torch.arange(256, device=image.device)
    brightest = torch.where(counts > 0, every, 0).amax(1, keepdim=True)
    step = (planes.shape[1] - counts.gather(1, brightest)) // 255
    before = counts.cumsum(1) - counts
    table = ((before + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, every)
    return table.gather(1, planes).reshape(levels.shape).to(image.dtype)


def affine(batch, device):
    """theta f32[B, 2, 3] from the strong view's coordinates to the weak view's."""

    def uniform(low, high):
        return low + (high - low) * torch.rand(batch, device=device)

    angle = torch.deg2rad(uniform(-30, 30))
    tilted = angle + torch.deg2rad(uniform(-5, 5))
    scale = uniform(0.8, 1.2)
    sign = torch.where(torch.rand(batch, device=device) < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(angle)
    first = torch.stack([sign * torch.cos(angle), -sign * torch.sin(tilted), zero], 1)
    second = torch.stack([torch.sin(angle), torch.cos(tilted), zero], 1)
    return scale[:, None, None] * torch.stack([first, second], 1)


def draw(x, low, high):
    """One number an image, [B, 1, 1, 1]."""
    return low + (high - low) * torch.rand(len(x), 1, 1, 1, device=x.device)


def grey(x):
    """The luma f32[B, 1, H, W]."""
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


def blend(degenerate, x, factor):
    """From `degenerate` at factor 0 over `x` at 1 and beyond."""
    return torch.clamp(torch.lerp(degenerate.expand_as(x), x, factor), 0, 255)


def warp_grid(theta, size):
    """Sampling positions of the strong view, and the pixels free of padding."""
    grid = F.affine_grid(theta, [len(theta), 1, *size], align_corners=False)
    limit = 1 - 1 / grid.new_tensor([size[1], size[0]])
    return grid, (grid.abs() <= limit).all(-1)


def warp(x, grid):
    """Bilinear, zeros outside."""
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
