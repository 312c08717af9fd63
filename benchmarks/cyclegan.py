"""Seconds of a CycleGAN training step, ours beside one in PyTorch.

    python -m benchmarks.cyclegan                               # 128 x 128, full width
    python -m benchmarks.cyclegan --size 64 128 --width 16 --blocks 4
    taskset -c 0 python -m benchmarks.cyclegan                  # one core for both

Needs PyTorch (pip install 'tufl-jax[bench]'). Both train the same networks (resnet_9
and the 70x70 PatchGAN at their published width) on the same images: adversarial, cycle
and identity losses, pools of 50 images, Adam on generators and discriminators. PyTorch
takes them one after the other, as published, with its convolutions in both memory
formats. Both sides take turns; medians are printed. A ratio is a time over ours: above
1 ours is faster.
"""

import argparse
import itertools
import random

import jax
import numpy as np

from benchmarks import common
from tufl_jax import config as config_lib
from tufl_jax import models, startup, steps
from tufl_jax.steps import step as step_lib
from tufl_jax.steps.common import Context


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    gpu = common.set_up_torch()
    print(common.machine())
    size = f"{args.batch} + {args.batch} images of {args.size[0]} x {args.size[1]}"
    print(f"{size}, width {args.width}, {args.blocks} blocks")
    rng = np.random.default_rng(0)
    shape = (args.batch, *args.size, 3)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2)]
    calls = {"ours": jax_step(args, *images)}
    calls |= torch_steps(args, *images, gpu)
    for call in calls.values():
        call()
    common.print_table(common.alternate(calls, args.rounds))


def jax_step(args, source, target):
    """A call that makes one step of ours."""
    config = config_lib.base()
    config.stage = "cyclegan"
    config.style.update(width=args.width, blocks=args.blocks)
    config.optim.update(name="adamw", momentum=0.5, weight_decay=0.0)
    config.optim.update(learning_rate=2e-4, warmup_steps=0)
    for spec in (config.data.source, config.data.target):
        spec.update(crop=tuple(args.size), batch_size=args.batch)
    model = startup.build_model(config)
    optimizer, _ = startup.build_optimizer(config, model)
    mesh = step_lib.make_mesh(jax.devices()[:1])
    step = step_lib.make_train_step(
        steps.STAGES["cyclegan"].loss_fn, Context(config, model), optimizer, mesh
    )
    state = startup.new_state(config, optimizer, models.init(model, jax.random.key(0)))
    state = step_lib.replicate(state, mesh)
    batch = {"source_image": source, "target_image": target}
    batch = step_lib.put_batch(batch, mesh)

    def call():
        nonlocal state
        state, _ = step(state, batch)
        jax.block_until_ready(state)

    return call


def torch_steps(args, source, target, gpu: bool) -> dict:
    """{name: a call that makes one step of PyTorch}."""
    import torch

    on = "cuda" if gpu else "cpu"
    steps_of = {}
    for layout in ("contiguous_format", "channels_last"):
        form = getattr(torch, layout)

        def image(array, form=form):
            scaled = torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1
            return scaled.to(on, memory_format=form)

        nets = {
            name: make(args.width, args.blocks).to(on, memory_format=form)
            for name, make in (
                ("to_target", torch_generator),
                ("to_source", torch_generator),
                ("judge_target", torch_discriminator),
                ("judge_source", torch_discriminator),
            )
        }
        call = torch_step(nets, image(source), image(target))
        steps_of[f"PyTorch, {layout}"] = call
    return steps_of


def torch_step(nets: dict, a, b):
    """A call that makes one step: generators, then discriminators."""
    import torch

    generators = itertools.chain(
        nets["to_target"].parameters(), nets["to_source"].parameters()
    )
    critics = [*nets["judge_target"].parameters(), *nets["judge_source"].parameters()]
    make = {"lr": 2e-4, "betas": (0.5, 0.999)}
    of_generators = torch.optim.Adam(generators, **make)
    of_critics = torch.optim.Adam(critics, **make)
    pools = {"a": [], "b": []}

    def like(scores, value):
        return torch.mean((scores - value) ** 2)

    def call():
        for critic in critics:
            critic.requires_grad_(False)
        of_generators.zero_grad()
        new_b, new_a = nets["to_target"](a), nets["to_source"](b)
        back_a, back_b = nets["to_source"](new_b), nets["to_target"](new_a)
        same_b, same_a = nets["to_target"](b), nets["to_source"](a)
        loss = like(nets["judge_target"](new_b), 1) + like(
            nets["judge_source"](new_a), 1
        )
        loss = loss + 10 * ((back_a - a).abs().mean() + (back_b - b).abs().mean())
        loss = loss + 5 * ((same_a - a).abs().mean() + (same_b - b).abs().mean())
        loss.backward()
        of_generators.step()
        for critic in critics:
            critic.requires_grad_(True)
        of_critics.zero_grad()
        for judge, real, new, pool in (
            ("judge_target", b, new_b, pools["b"]),
            ("judge_source", a, new_a, pools["a"]),
        ):
            shown = exchange(new.detach(), pool)
            net = nets[judge]
            (0.5 * (like(net(real), 1) + like(net(shown), 0))).backward()
        of_critics.step()
        return loss.item()

    return call


def exchange(images, pool: list):
    """The pool of 50 images, in its published form."""
    import torch

    shown = []
    for image in images:
        if len(pool) < 50:
            pool.append(image)
        elif random.random() < 0.5:
            place = random.randrange(50)
            image, pool[place] = pool[place], image
        shown.append(image)
    return torch.stack(shown)


def torch_generator(width: int, blocks: int):
    """resnet_9 with instance norm."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, features):
            super().__init__()
            self.body = nn.Sequential(
                nn.ReflectionPad2d(1),
                nn.Conv2d(features, features, 3),
                nn.InstanceNorm2d(features),
                nn.ReLU(inplace=True),
                nn.ReflectionPad2d(1),
                nn.Conv2d(features, features, 3),
                nn.InstanceNorm2d(features),
            )

        def forward(self, x):
            return x + self.body(x)

    def down(features):
        return [
            nn.Conv2d(features, 2 * features, 3, stride=2, padding=1),
            nn.InstanceNorm2d(2 * features),
            nn.ReLU(inplace=True),
        ]

    def up(features):
        made = nn.ConvTranspose2d(
            features, features // 2, 3, stride=2, padding=1, output_padding=1
        )
        return [made, nn.InstanceNorm2d(features // 2), nn.ReLU(inplace=True)]

    return nn.Sequential(
        nn.ReflectionPad2d(3),
        nn.Conv2d(3, width, 7),
        nn.InstanceNorm2d(width),
        nn.ReLU(inplace=True),
        *down(width),
        *down(2 * width),
        *(Block(4 * width) for _ in range(blocks)),
        *up(4 * width),
        *up(2 * width),
        nn.ReflectionPad2d(3),
        nn.Conv2d(width, 3, 7),
        nn.Tanh(),
    )


def torch_discriminator(width: int, blocks: int):
    """The 70x70 PatchGAN."""
    from torch import nn

    del blocks

    def layer(inputs, outputs, stride):
        return [
            nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1),
            nn.InstanceNorm2d(outputs),
            nn.LeakyReLU(0.2, inplace=True),
        ]

    return nn.Sequential(
        nn.Conv2d(3, width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2, inplace=True),
        *layer(width, 2 * width, 2),
        *layer(2 * width, 4 * width, 2),
        *layer(4 * width, 8 * width, 1),
        nn.Conv2d(8 * width, 1, 4, padding=1),
    )


if __name__ == "__main__":
    main()
