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
from tufl_jax import labels, models, optim, pool, state, steps, validation
from tufl_jax.checkpoint import Checkpoints
from tufl_jax.data import longtail, pipeline, sources, transforms
from tufl_jax.errors import UserError
from tufl_jax.models import pretrained
from tufl_jax.models.cyclegan import CycleGAN
from tufl_jax.steps import step as step_lib


def usable_devices(config: ConfigDict) -> list[jax.Device]:
    """As many devices as split the batches evenly, equally many of each process.

    With config.train.accumulate it is the parts of the batches that are split.

    Raises:
      UserError: a batch does not split over the processes.
    """
    sizes = [
        config.data[domain].batch_size // config.train.accumulate
        for domain in config_lib.domains(config)
    ]
    processes, devices = jax.process_count(), jax.devices()
    common = math.gcd(*sizes)
    if common % processes:
        raise UserError(
            f"batches of {sizes} images do not split over {processes} processes: "
            f"choose multiples of {processes} for config.data.*.batch_size"
        )
    local = [[d for d in devices if d.process_index == p] for p in range(processes)]
    fewest = min(map(len, local))
    count = max(n for n in range(1, fewest + 1) if common % (n * processes) == 0)
    if count * processes < len(devices):
        logging.warning(
            "batches of %s use %d of %d devices: choose multiples of %d to use all",
            sizes,
            count * processes,
            len(devices),
            len(devices),
        )
    return [device for own in local for device in own[:count]]


def open_dataset(config: ConfigDict, domain: str, *, labelled: bool):
    """The data source of config.data[domain]; UserError for a missing root.

    The classes are the config's, for 'eval' those of `labels.ground_truth_of_config`.
    """
    spec = ConfigDict(config.data[domain].to_dict())
    for key in ("root", "translated"):
        spec[key] = config_lib.expand(spec[key], key=f"data.{domain}.{key}")
    # Every seed is judged on the same images.
    judged = domain == "eval"
    classes = labels.ground_truth_of_config if judged else labels.of_config
    return sources.build(
        spec,
        classes=classes(config),
        seed=0 if judged else config.seed,
        labelled=labelled,
    )


def open_data(config: ConfigDict) -> dict:
    """The sources a stage needs of 'source', 'target' and 'eval'."""
    segments = config.stage in validation.SEGMENTATION
    data = {"source": open_dataset(config, "source", labelled=segments)}
    if segments:
        data["eval"] = open_dataset(config, "eval", labelled=True)
    if "target" in config_lib.domains(config):
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
    """The network that config.stage trains; UserError for an option that it lacks."""
    if config.stage in validation.SEGMENTATION:
        return build_segmentation(config)
    dtype = np.dtype(config.model.dtype)
    return CycleGAN(config.style.width, config.style.blocks, dtype)


def build_teacher(config: ConfigDict, model: nn.Module) -> nn.Module | None:
    """The network of the state's frozen teacher; None where a stage has none."""
    if config.stage == "cyclegan" and config.style.lambda_semantic:
        return build_segmentation(config)
    return model if config.stage == "stage2" else None


def build_segmentation(config: ConfigDict) -> nn.Module:
    """The network of config.model."""
    names = (
        "aux_heads",
        "activation",
        "head",
        "stride_place",
        "bn_pretrain",
        "remat",
    )
    options = {name: config.model[name] for name in names}
    return models.build(
        config.model.name,
        num_classes=config.num_classes,
        width=config.model.width,
        axis_name=step_lib.AXIS,
        dtype=np.dtype(config.model.dtype),
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
        constant_steps=round(config.optim.constant * config.train.num_steps),
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
    teacher = build_teacher(config, model)
    if teacher is not None:
        _, teacher = load_run(config, teacher, "teacher.run", config.teacher.run)
    bank = first_bank(config, donors) if donors is not None else None
    new = new_state(
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
    teacher, bank = build_teacher(config, model), None
    if teacher is not None:
        teacher = models.shapes(teacher)
    if config.stage == "stage2":
        lead = (config.num_classes, config.mixing.donors_per_class)
        crop = tuple(config.data.source.crop)
        bank = {
            "image": jax.ShapeDtypeStruct((*lead, *crop, 3), np.uint8),
            "label": jax.ShapeDtypeStruct((*lead, *crop), np.uint8),
            "available": jax.ShapeDtypeStruct(lead, np.bool_),
        }
    return jax.eval_shape(
        lambda v, t, d: new_state(config, optimizer, v, teacher=t, donors=d),
        models.shapes(model),
        teacher,
        bank,
    )


def new_state(
    config: ConfigDict, optimizer, variables, *, teacher=None, donors=None
) -> state.TrainState:
    """The state before the first step; the arguments are those of state.create."""
    if config.stage == "cyclegan":
        crop = tuple(config.data.source.crop)
        donors = {
            domain: pool.create(config.style.pool, crop)
            for domain in config_lib.domains(config)
        }
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
    config: ConfigDict,
    model: nn.Module,
    key: str,
    workdir: str | pathlib.Path,
    *,
    only: int | None = None,
) -> tuple[int, dict]:
    """Step and {'params', 'batch_stats'} of the newest good checkpoint of a run.

    Args:
      config: the config that asks.
      model: its network, which the variables must fit.
      key: the config key or flag that named the run, for messages.
      workdir: the run's folder.
      only: this step instead of the newest.

    Raises:
      UserError: no such run, or its network differs from this one.
    """
    path = pathlib.Path(config_lib.expand(str(workdir), key=key))
    if not (path / "checkpoints").is_dir():
        raise UserError(f"{key}: no checkpoints in {path}; train that run first")
    others = Checkpoints(path, read_only=True)
    try:
        step, variables = others.restore_variables(only)
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
