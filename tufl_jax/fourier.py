"""Fourier domain adaptation (Yang and Soatto 2020): the colours and light of another
image, as the amplitudes of its lowest frequencies.
"""

import jax
import jax.numpy as jnp


def adapt(source: jax.Array, target: jax.Array, *, beta: float) -> jax.Array:
    """Source images with the low-frequency amplitudes of target images.

    Per channel, the amplitude spectrum of the target replaces that of the source where
    both frequencies are at most b = floor(beta min(H, W)) cycles an image; phases stay.
    b = 0 exchanges the mean alone, up to its sign.

    Args:
      source, target: f32[..., H, W, C], any scale that both share.
      beta: half width of the square as a share of the shorter side, in [0, 0.5];
        published: 0.01, 0.05, 0.09.

    Returns:
      f32[..., H, W, C] on that scale, not clipped.
    """
    height, width = source.shape[-3:-1]
    reach = int(beta * min(height, width))
    ours, theirs = (jnp.fft.rfft2(x, axes=(-3, -2)) for x in (source, target))
    rows = jnp.abs(jnp.fft.fftfreq(height, 1 / height)) <= reach + 0.5
    columns = jnp.arange(width // 2 + 1) <= reach
    low = (rows[:, None] & columns)[..., None]
    # A frequency that the source lacks has no phase: it gets phase 0.
    size = jnp.abs(ours)
    phase = jnp.where(size > 0, ours / jnp.where(size > 0, size, 1.0), 1.0)
    mixed = jnp.where(low, jnp.abs(theirs) * phase, ours)
    return jnp.fft.irfft2(mixed, s=(height, width), axes=(-3, -2))
