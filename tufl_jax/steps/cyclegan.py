"""Style translation between source and target images: CycleGAN (Zhu et al. 2017).

Generators and discriminators are updated together: each from the other as it was
before the step, as in the published code, where both gradients come from one forward
pass of the generators. So one loss holds both, and stop_gradient keeps them apart.
"""

import jax
import jax.numpy as jnp

from tufl_jax import augment, losses, pool
from tufl_jax.steps.common import Context, Outputs

METRICS = (
    "loss",
    "loss_adversarial",
    "loss_cycle",
    "loss_identity",
    "loss_semantic",
    "loss_discriminator",
)
OTHER = {"source": "target", "target": "source"}


def loss_fn(params, state, batch, keys, ctx: Context):
    """Least-squares GAN, cycle, identity and semantic losses of both directions.

    loss = sum over domains d of
        mean((D_d(G_d(x)) - 1)^2)                             x of the other domain
      + lambda_cycle mean|G_d(G_other(y)) - y|                y of d
      + lambda_cycle lambda_identity mean|G_d(y) - y|
      + lambda_semantic CE(S(G_d(x)), argmax S(x))            S frozen (CyCADA)
      + 1/2 (mean((D_d(y) - 1)^2) + mean(D_d(pooled)^2))      D alone; G_d(x), or older

    Args:
      params: of models.cyclegan.CycleGAN, to differentiate.
      state: TrainState; `donors` are the pools of both domains, `teacher` S if any.
      batch: 'source_image' u8[B, H, W, 3], 'target_image' u8[Bt, H, W, 3].
      keys: {'source': key[B], 'target': key[Bt]}.
      ctx: see Context.

    Returns:
      loss f32[], Outputs.
    """
    style = ctx.config.style
    real = {domain: scaled(batch[f"{domain}_image"]) for domain in OTHER}
    new, same = {}, {}
    for domain, other in OTHER.items():
        inputs = [real[other]] + [real[domain]] * (style.lambda_identity > 0)
        both = translate(ctx, params, jnp.concatenate(inputs), domain)
        new[domain], same[domain] = jnp.split(both, [len(real[other])])
    back = {d: translate(ctx, params, new[OTHER[d]], d) for d in OTHER}

    def total(term):
        return sum(mean(ctx, term(domain)) for domain in OTHER)

    frozen = jax.lax.stop_gradient(params)
    adversarial = total(lambda d: (judge(ctx, frozen, new[d], d) - 1) ** 2)
    cycle = total(lambda d: jnp.abs(back[d] - real[d]))
    identity = semantic = jnp.zeros(())
    if style.lambda_identity > 0:
        identity = total(lambda d: jnp.abs(same[d] - real[d]))
    if style.lambda_semantic > 0:
        semantic = total(lambda d: meaning(ctx, state.teacher, real[OTHER[d]], new[d]))
    shown, pools = {}, {}
    for domain, other in OTHER.items():
        shown[domain], pools[domain] = pool.exchange(
            keys[other],
            jax.lax.stop_gradient(new[domain]),
            state.donors[domain],
            axis_name=ctx.axis_name,
        )
    discriminator = total(lambda d: critic_loss(ctx, params, real[d], shown[d], d))
    loss = adversarial + style.lambda_cycle * (cycle + style.lambda_identity * identity)
    loss += style.lambda_semantic * semantic + discriminator
    values = (loss, adversarial, cycle, identity, semantic, discriminator)
    metrics = dict(zip(METRICS, values, strict=True))
    pictures = {}
    for domain, other in OTHER.items():
        pictures[f"{domain}/image"] = pixels(real[domain][:1])
        pictures[f"{domain}/translated"] = pixels(new[other][:1])
        pictures[f"{domain}/cycle"] = pixels(back[domain][:1])
        if style.lambda_identity > 0:
            pictures[f"{domain}/identity"] = pixels(same[domain][:1])
    return loss, Outputs(state.batch_stats, state.thresholds, pools, metrics, pictures)


def scaled(images) -> jax.Array:
    """0..255 to f32 in -1..1."""
    return images.astype(jnp.float32) / 127.5 - 1


def pixels(images) -> jax.Array:
    """-1..1 to f32 in 0..255."""
    return (images + 1) * 127.5


def translate(ctx: Context, params, images, domain: str) -> jax.Array:
    """f32[B, H, W, 3] in -1..1, in the style of `domain`."""
    return ctx.model.apply({"params": params}, images, domain, method="translate")


def judge(ctx: Context, params, images, domain: str) -> jax.Array:
    """f32[B, h, w, 1]: how much patches look like those of `domain`."""
    return ctx.model.apply({"params": params}, images, domain, method="judge")


def critic_loss(ctx: Context, params, real, shown, domain: str) -> jax.Array:
    """Squared errors f32[] of a discriminator: half of real, half of other images."""
    scores = judge(ctx, params, jnp.concatenate([real, shown]), domain)
    ours, others = jnp.split(scores, [len(real)])
    return (jnp.mean((ours - 1) ** 2) + jnp.mean(others**2)) / 2


def meaning(ctx: Context, teacher, before, after) -> jax.Array:
    """Cross entropy f32[B, H, W] of the teacher on translated images.

    Its labels are what the same frozen network sees in the images before.
    """

    def logits(images):
        mode = ctx.config.model.normalization
        images = augment.normalize(pixels(images), mode=mode)
        return ctx.teacher.apply(teacher, images, train=False)[0]

    labels = jnp.argmax(jax.lax.stop_gradient(logits(before)), -1)
    return losses.cross_entropy(logits(after), labels)


def mean(ctx: Context, values) -> jax.Array:
    """Mean over the global batch, of which every device has an equal part."""
    local = jnp.mean(values)
    return jax.lax.pmean(local, ctx.axis_name) if ctx.axis_name else local
