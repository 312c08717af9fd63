"""A pool of earlier translations, which steadies discriminators (Shrivastava 2017)."""

import jax
import jax.numpy as jnp


def create(size: int, image_size: tuple[int, int]) -> dict:
    """An empty pool: 'images' f32[size, H, W, 3] and 'count' i32[]."""
    return {
        "images": jnp.zeros((size, *image_size, 3), jnp.float32),
        "count": jnp.zeros((), jnp.int32),
    }


def exchange(
    keys: jax.Array, images: jax.Array, pool: dict, *, axis_name: str | None = None
) -> tuple[jax.Array, dict]:
    """Show new images or earlier ones, and keep new ones.

    Until the pool is full, every image is kept and shown. Then each, with probability
    one half, changes places with one that is drawn from the pool. The images of the
    global batch come one after the other and each has its own key, so the result
    depends on no device.

    Args:
      keys: key[B].
      images: f32[B, H, W, 3] of this device.
      pool: from `create`, the same on all devices.
      axis_name: mesh axis that the batch is split over.

    Returns:
      f32[B, H, W, 3] to show, the new pool.
    """
    size = len(pool["images"])
    if size == 0:
        return images, pool
    swap = jax.vmap(jax.random.bernoulli)(jax.vmap(_folded(0))(keys))
    slot = jax.vmap(lambda key: jax.random.randint(key, (), 0, size))(
        jax.vmap(_folded(1))(keys)
    )
    everything = (images, swap, slot)
    if axis_name:
        everything = jax.tree.map(
            lambda x: jax.lax.all_gather(x, axis_name, tiled=True, to="invarying"),
            everything,
        )

    def one(pool, item):
        image, swap, slot = item
        filling = pool["count"] < size
        place = jnp.where(filling, pool["count"], slot)
        old = pool["images"][place]
        kept = jnp.where(filling | swap, image, old)
        shown = jnp.where(filling | ~swap, image, old)
        pool = {
            "images": pool["images"].at[place].set(kept),
            "count": jnp.minimum(pool["count"] + 1, size),
        }
        return pool, shown

    pool, shown = jax.lax.scan(one, pool, everything)
    if axis_name:
        first = jax.lax.axis_index(axis_name) * len(images)
        shown = jax.lax.dynamic_slice_in_dim(shown, first, len(images))
    return shown, pool


def _folded(tag: int):
    return lambda key: jax.random.fold_in(key, tag)
