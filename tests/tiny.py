"""A network and data small enough for tests of whole steps."""

import importlib
import os

import numpy as np
from absl import flags
from PIL import Image

from tufl_jax import config as config_lib

SIZE = (64, 128)


def command_module(name: str):
    """The module of a command, without its flags: each command defines --config."""
    before = set(flags.FLAGS)
    module = importlib.import_module(f"tufl_jax.{name}")
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
    return module


def child_environment(**changes) -> dict[str, str]:
    """The environment of a program that a test starts, on the CPU.

    Such a test looks at what a program keeps and says, not at its speed.
    """
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        **{name: str(value) for name, value in changes.items()},
    }


def tiny_config(stage: str, **changes):
    """A config for 64 x 128 images; `changes` are dotted keys with __ for the dots."""
    config = config_lib.base()
    config.stage = stage
    config.model.width = 8
    for domain in (config.data.source, config.data.target):
        domain.crop = SIZE
        domain.size = SIZE
        domain.scales = (1.0,)
        domain.batch_size = 8
        domain.length = 24
    config.data.eval.update(size=SIZE, length=9)
    config.eval.batch_size = 4
    config.optim.update(learning_rate=0.01, warmup_steps=2, warmup_start=0.0)
    config.thresholds.init = 0.07  # a new network is hardly surer than 1 / 19
    config.mixing.min_pixels = 8
    config.train.update(
        num_steps=6, log_every=3, checkpoint_every=2, eval_every=0, summary_every=0
    )
    config.teacher.run = "stage1" if stage == "stage2" else ""
    for key, value in changes.items():
        config_lib.set_key(config, key.replace("__", "."), value)
    return config


def blocks(rng, count, num_classes=19):
    """Images u8[N, 64, 128, 3] of class-coloured blocks and labels with ignored parts.

    The share of ignored pixels grows with the index: no two devices get equally many.
    """
    small = rng.integers(0, num_classes, (count, 4, 8))
    labels = small.repeat(16, 1).repeat(16, 2).astype(np.uint8)
    palette = rng.integers(0, 256, (num_classes, 3))
    images = palette[labels] + rng.normal(0, 20, (*labels.shape, 3))
    for i in range(count):
        labels[i, : 4 * i % 48] = 255
    return np.clip(images, 0, 255).astype(np.uint8), labels


def write_folder(root, *, train=6, val=3):
    """A data set in Cityscapes layout with 64 x 128 images; returns `root`."""
    ids = np.full(256, 0, np.uint8)
    ids[:19] = [
        7,
        8,
        11,
        12,
        13,
        17,
        19,
        20,
        21,
        22,
        23,
        24,
        25,
        26,
        27,
        28,
        31,
        32,
        33,
    ]
    rng = np.random.default_rng(7)
    for split, count in (("train", train), ("val", val)):
        folders = [root / kind / split / "town" for kind in ("leftImg8bit", "gtFine")]
        for folder in folders:
            folder.mkdir(parents=True)
        for i, (image, label) in enumerate(zip(*blocks(rng, count), strict=True)):
            name = f"town_{i:06d}_000019"
            Image.fromarray(image).save(folders[0] / f"{name}_leftImg8bit.png")
            Image.fromarray(ids[label]).save(folders[1] / f"{name}_gtFine_labelIds.png")
    return root
