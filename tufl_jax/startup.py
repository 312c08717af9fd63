"""What happens before the first step: data, network, state."""

import math
import pathlib

import jax
import numpy as np
import optax
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from tufl_jax import config as config_lib
from tufl_jax import labels, models, optim, state, steps
from tufl_jax.checkpoint import Checkpoints
from tufl_jax.data import longtail, pipeline, sources, transforms
from tufl_jax.errors import UserError
from tufl_jax.models import pretrained
from tufl_jax.steps import step as step_lib


def usable_devices(config: ConfigDict) -> list[jax.Device]:
    """As many devices as split the batches evenly."""
    sizes = [config.data.source.batch_size]
    if config.stage != "source":
        sizes.append(config.data.target.batch_size)
    devices = jax.devices()
    common = math.gcd(*sizes)
    count = max(n for n in range(1, len(devices) + 1) if common % n == 0)
    if count < len(devices):
        logging.warning(
            "batches of %s use %d of %d devices: choose multiples of %d to use all",
            sizes,
            count,
            len(devices),
            len(devices),
        )
    return devices[:count]


def open_dataset(config: ConfigDict, domain: str, *, labelled: bool):
    """The data source of config.data[domain]; UserError for a missing root."""
    spec = ConfigDict(config.data[domain].to_dict())
    spec.root = config_lib.expand(spec.root, key=f"data.{domain}.root")
    # Every seed is judged on the same images.
    seed = 0 if domain == "eval" else config.seed
    return sources.build(
        spec, classes=labels.of_config(config), seed=seed, labelled=labelled
    )


def open_data(config: ConfigDict) -> dict:
    """The sources a stage needs: 'source', 'eval' and, but for 'source', 'target'."""
    data = {
        "source": open_dataset(config, "source", labelled=True),
        "eval": open_dataset(config, "eval", labelled=True),
    }
    if config.stage != "source":
        data["target"] = open_dataset(config, "target", labelled=False)
    return data


def open_donors(
    config: ConfigDict, data: dict, cache_dir: pathlib.Path | None
) -> longtail.Donors | None:
    """The donor stream and class database M_c of stage 2, None elsewhere."""
    if config.stage != "stage2":
        return None
    return longtail.Donors(
        data["source"],
        longtail.class_database(
            data["source"],
            config.num_classes,
            min_pixels=config.mixing.min_pixels,
            cache_dir=cache_dir,
        ),
        augmentation(config.data.source),
        per_step=config.mixing.donors_per_step,
    )


def augmentation(spec: ConfigDict) -> transforms.Augment:
    """The host transforms of one domain."""
    return transforms.Augment(
        crop=tuple(spec.crop),
        resize=None if spec.resize is None else tuple(spec.resize),
        scales=tuple(spec.scales),
        scale_width=tuple(spec.scale_width) or None,
        hflip=spec.hflip,
    )


def open_batches(
    config: ConfigDict, data: dict, donors: longtail.Donors | None, start_step: int
) -> pipeline.Batches:
    """This process's host batches from `start_step` on."""

    def domain(name):
        spec = config.data[name]
        return pipeline.Domain(data[name], augmentation(spec), spec.batch_size)

    return pipeline.train_batches(
        domain("source"),
        target=domain("target") if "target" in data else None,
        donors=donors,
        seed=config.seed,
        start_step=start_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.data.num_threads,
        num_workers=config.data.num_workers,
    )


def build_model(config: ConfigDict) -> nn.Module:
    """The network of config.model; UserError for an option that it lacks."""
    names = ("aux_heads", "activation", "head", "stride_place", "bn_pretrain")
    options = {name: config.model[name] for name in names}
    return models.build(
        config.model.name,
        num_classes=config.num_classes,
        width=config.model.width,
        axis_name=step_lib.AXIS,
        **{name: value for name, value in options.items() if value is not None},
    )


def build_optimizer(config: ConfigDict, model: nn.Module):
    """The optimiser and its schedule."""
    schedule = optim.learning_rate_schedule(
        config.optim.learning_rate,
        config.train.num_steps,
        warmup_steps=config.optim.warmup_steps,
        warmup_start=config.optim.warmup_start,
        power=config.optim.power,
    )
    optimizer = optim.OPTIMIZERS[config.optim.name](
        schedule,
        momentum=config.optim.momentum,
        weight_decay=config.optim.weight_decay,
        head_modules=model.HEAD_MODULES,
        head_multiplier=config.optim.head_multiplier,
        backbone_multiplier=config.optim.backbone_multiplier,
    )
    return optimizer, schedule


def start_state(
    config: ConfigDict,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    checkpoints: Checkpoints,
    donors: longtail.Donors | None,
    mesh: Mesh,
) -> state.TrainState:
    """Own checkpoint, else init.run, else init.pretrained, else random, in this order.

    Raises:
      UserError: a checkpoint or weights file is missing or does not fit.
    """
    replicated = NamedSharding(mesh, P())
    if checkpoints.latest_step is not None:
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated),
            abstract_state(config, model, optimizer),
        )
        return checkpoints.restore(like)
    teacher = None
    if config.stage == "stage2":
        _, teacher = load_run(config, model, "teacher.run", config.teacher.run)
    bank = first_bank(config, donors) if donors is not None else None
    new = _create(
        config,
        optimizer,
        initial_variables(config, model),
        teacher=teacher,
        donors=bank,
    )
    return jax.device_put(new, replicated)


def first_bank(config: ConfigDict, donors: longtail.Donors) -> dict:
    """The donor bank before the first step."""
    return longtail.donor_bank(
        donors, per_class=config.mixing.donors_per_class, seed=config.seed
    )


def abstract_state(config: ConfigDict, model: nn.Module, optimizer) -> state.TrainState:
    """The TrainState's shapes and dtypes, without reading or computing anything."""
    variables = models.shapes(model)
    teacher = bank = None
    if config.stage == "stage2":
        teacher = variables
        lead = (config.num_classes, config.mixing.donors_per_class)
        crop = tuple(config.data.source.crop)
        bank = {
            "image": jax.ShapeDtypeStruct((*lead, *crop, 3), np.uint8),
            "label": jax.ShapeDtypeStruct((*lead, *crop), np.uint8),
            "available": jax.ShapeDtypeStruct(lead, np.bool_),
        }
    return jax.eval_shape(
        lambda v, t, d: _create(config, optimizer, v, teacher=t, donors=d),
        variables,
        teacher,
        bank,
    )


def _create(config, optimizer, variables, *, teacher, donors) -> state.TrainState:
    return state.create(
        variables,
        optimizer,
        num_classes=config.num_classes,
        initial_threshold=config.thresholds.init,
        metrics=steps.STAGES[config.stage].METRICS,
        teacher=teacher,
        donors=donors,
    )


def initial_variables(config: ConfigDict, model: nn.Module) -> dict:
    """Variables of a new run: init.run, else init.pretrained, else random."""
    if config.init.run:
        return load_run(config, model, "init.run", config.init.run)[1]
    variables = models.init(model, jax.random.key(config.seed))
    if config.init.pretrained:
        path = config_lib.expand(config.init.pretrained, key="init.pretrained")
        return pretrained.load(path, model, variables)
    return variables


def load_run(
    config: ConfigDict, model: nn.Module, key: str, workdir: str | pathlib.Path
) -> tuple[int, dict]:
    """Step and {'params', 'batch_stats'} of the newest good checkpoint of a run.

    Args:
      config: the config that asks.
      model: its network, which the variables must fit.
      key: the config key or flag that named the run, for messages.
      workdir: the run's folder.

    Raises:
      UserError: no such run, or its network differs from this one.
    """
    path = pathlib.Path(config_lib.expand(str(workdir), key=key))
    if not (path / "checkpoints").is_dir():
        raise UserError(f"{key}: no checkpoints in {path}; train that run first")
    others = Checkpoints(path, read_only=True)
    try:
        step, variables = others.restore_variables()
    finally:
        others.close()
    variables = {name: variables[name] for name in ("params", "batch_stats")}
    check_variables(variables, models.shapes(model), where=f"{key} ({path})")
    logging.info("%s: network of %s at step %d", key, path, step)
    return step, variables


def check_variables(variables: dict, expected: dict, *, where: str) -> None:
    """Raise UserError naming the first array that is missing, extra or misshapen."""

    def shapes(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {
            jax.tree_util.keystr(p, simple=True, separator="/"): tuple(x.shape)
            for p, x in leaves
        }

    found, wanted = shapes(variables), shapes(expected)
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise UserError(
                f"{where} does not fit this network: {key} is "
                f"{found.get(key, 'absent')}, needed {wanted.get(key, 'absent')}"
            )
