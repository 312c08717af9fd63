"""The paper's trainings on its data sets, with its numbers: one recipe a pair.

`configs/` has a file for each run of them, `paper.py` the tables on top of them.
"""

from ml_collections import ConfigDict

from tufl_jax import config as config_lib
from tufl_jax import presets
from tufl_jax.errors import UserError

CITIES = ("Rio", "Rome", "Taipei", "Tokyo")
NETWORKS = ("bisenet", "deeplab")
RELEASED_SCALES = (0.75, 1.0, 1.25, 1.5)


def recipe(source: str, network: str = "bisenet") -> ConfigDict:
    """The paper's trainings: source, stage1, stage2 and oracle.

    Marks as in config.py; [ProDA] is what the paper's "most settings as ProDA" most
    likely means. Where nothing is known the value is [own]. Folders: $SYNTHIA, $GTA5,
    $CITYSCAPES, $CROSSCITY; ImageNet weights: $RESNET18 or $RESNET101.

    Args:
      source: 'synthia' or 'gta5' (to Cityscapes), or a city of Cross-City (from
        Cityscapes).
      network: 'bisenet' or 'deeplab'.

    Raises:
      UserError: another name.
    """
    for name, allowed in (
        (source, ("synthia", "gta5", *CITIES)),
        (network, NETWORKS),
    ):
        if name not in allowed:
            raise UserError(f"'{name}' is not one of {', '.join(allowed)}")
    c = config_lib.base()
    _data(c, source, network)
    runs = _bisenet(c, source) if network == "bisenet" else _deeplab(c, source)
    c.recipe = ("source", "stage1", "stage2")
    with c.unlocked():
        c.runs.source = {"stage": "source", **runs["source"]}
        c.runs.stage1 = {
            "stage": "stage1",
            "init": {"run": "source"},
            **runs["adapt"],
        }
        c.runs.stage2 = {  # from the source weights, not from stage 1 [P]
            "stage": "stage2",
            "init": {"run": "source"},
            "teacher": {"run": "stage1"},
            **runs["adapt"],
        }
        c.runs.oracle = {"stage": "source", **runs["oracle"]}
    return c.lock()


def with_style(source: str) -> ConfigDict:
    """BiSeNet's recipe from 'synthia' or 'gta5', and before it the run 'cyclegan'.

    That run trains the style translation, on whose images the others then train.
    """
    c = recipe(source)
    c.data.source.translated = "cyclegan"
    c.recipe = ("cyclegan", *c.recipe)
    with c.unlocked():
        c.runs.cyclegan = _style(source)
    return c.lock()


def style(source: str) -> ConfigDict:
    """The run 'cyclegan' of `with_style` as a config of its own."""
    return config_lib.run_config(with_style(source), "cyclegan").lock()


def _style(source: str) -> dict:
    """What the run of a style translation changes.

    The paper does not say how its translation was trained. Sizes and length are those
    that BDL gives for GTA5 [BDL], the losses those of CycleGAN's publication.
    """
    # Width 1024 with the aspect kept, crops of 452 x 452, batches of 4 [BDL]
    resize = {"synthia": (608, 1024), "gta5": (564, 1024)}[source]
    view = {"crop": (452, 452), "scales": (1.0,), "batch_size": 4}
    # 10 epochs of the source and 10 of linear decay [BDL]
    num_steps = {"synthia": 47_000, "gta5": 124_830}[source]
    return {
        "stage": "cyclegan",
        "data": {
            "source": {"translated": "", "resize": resize, **view},
            # The 2,975 of train, as others translate to
            "target": {"split": "train", "resize": (512, 1024), **view},
        },
        "optim": presets.CYCLEGAN,
        "train": {"num_steps": num_steps},
    }


def _data(c: ConfigDict, source: str, network: str) -> None:
    """The data sets, and how many classes they share."""
    data = c.data
    if source in CITIES:
        c.num_classes = 13  # [P]
        data.source.update(name="cityscapes", root="$CITYSCAPES", split="train")
        for spec, split in ((data.target, "train"), (data.eval, "test")):
            spec.update(name="crosscity", root="$CROSSCITY", city=source, split=split)
        return
    c.num_classes = {"synthia": 16, "gta5": 19}[source]  # [P]
    data.source.update(name=source, root=f"${source.upper()}", split="all")
    if network == "bisenet":  # images translated offline by CycleGAN [P]
        data.source.translated = f"runs/cyclegan_{source}/translated"
    # 19,997 unlabelled images for BiSeNet, the 2,975 of train for DeepLabV2 [P]
    split = "train_extra" if network == "bisenet" else "train"
    data.target.update(name="cityscapes", root="$CITYSCAPES", split=split)
    data.eval.update(name="cityscapes", root="$CITYSCAPES", split="val")


def _bisenet(c: ConfigDict, source: str) -> dict:
    """BiSeNet: everything shared goes into the config, the rest is returned."""
    for spec in (c.data.source, c.data.target):  # sizes of stages 1 and 2 [R]
        spec.update(crop=(640, 1280), scales=RELEASED_SCALES, batch_size=2)  # 2 + 2 [P]
    full = {  # what the source training sees
        "synthia": {"crop": (760, 1280), "scales": (1.0,)},  # whole images [P]
        "gta5": {"crop": (1000, 1000), "scales": (1.0,)},  # random crops [P]
    }.get(source, {"crop": (1024, 1024), "scales": RELEASED_SCALES})  # [R]
    trained = {
        "init": {"pretrained": "$RESNET18"},
        "optim": {"learning_rate": 2.5e-4},  # [P]
        "train": {"num_steps": 20_000},  # [P]
    }
    adapt = {
        "optim": {"learning_rate": 0.5e-5, "warmup_start": 0.0},  # [P], linear [own]
        # 20,000 [P]; Cross-City 2,000 [R]
        "train": {"num_steps": 2_000 if source in CITIES else 20_000},
    }
    if source in CITIES:
        adapt["train"] |= {"eval_every": 500, "checkpoint_every": 500}
    batch = {"batch_size": 12}  # [P]
    on_target = {"crop": (1024, 1024), "scales": RELEASED_SCALES, **batch}  # [R]
    return {
        "source": {**trained, "data": {"source": {**full, **batch}}},
        "adapt": adapt,
        "oracle": {**trained, "data": _labels_of_target(source, on_target)},
    }


def _deeplab(c: ConfigDict, source: str) -> dict:
    """DeepLabV2; of it the paper gives only the network and the data."""
    c.model.update(
        name="deeplabv2",
        head="proda",  # [P Table VII]
        normalization="unit",  # [ProDA]
        batch_norm="per_domain",  # trained, separate passes [ProDA]
    )
    c.optim.weight_decay = 2e-4  # [ProDA]
    sizes = {"synthia": (760, 1280), "gta5": (1052, 1914)}  # [ProDA]
    c.data.source.resize = sizes.get(source, (1024, 2048))
    c.data.target.resize = (1024, 2048)  # [ProDA]
    for spec in (c.data.source, c.data.target):
        # Width drawn from 0.5 to 1.5 times 2200, crop 512 x 896 [ProDA]; 2 + 2 [own]
        spec.update(scale_width=(1100, 3300), crop=(512, 896), batch_size=2)
    trained = {
        "init": {"pretrained": "$RESNET101"},
        # ProDA's warm-up; backbone tensors listed three times [ProDA]
        "optim": {"learning_rate": 1e-4, "backbone_multiplier": 3.0},
        "train": {"num_steps": 20_000},  # as BiSeNet's [own]
    }
    adapt = {  # ProDA's stage 1, whose list of parameters is plain: one rate for all
        "optim": {"learning_rate": 1e-4, "head_multiplier": 1.0},
        "train": {"num_steps": 62_000},  # 84 epochs in batches of 4 [ProDA]
    }
    batch = {"batch_size": 4}  # [ProDA]
    on_target = {"resize": (1024, 2048), **batch}
    return {
        "source": {**trained, "data": {"source": batch}},
        "adapt": adapt,
        "oracle": {**trained, "data": _labels_of_target(source, on_target)},
    }


def _labels_of_target(source: str, spec: dict) -> dict:
    """The data of an oracle.

    Cross-City labels its test images only: the oracle learns from the first half of
    them and is judged on the second [own].
    """
    if source in CITIES:
        spec = spec | {"name": "crosscity", "root": "$CROSSCITY", "city": source}
        spec |= {"split": "test", "stop": 0.5}
        return {"source": spec, "eval": {"start": 0.5}}
    spec = spec | {"name": "cityscapes", "root": "$CITYSCAPES", "split": "train"}
    return {"source": spec | {"translated": ""}}


def run(source: str, name: str, network: str = "bisenet") -> ConfigDict:
    """One run of `recipe` as a config of its own.

    The runs it builds on are looked for in the default workdirs of the sibling config
    files, such as runs/synthia_source, or runs/synthia_source/deeplab.
    """
    family = "crosscity" if source in CITIES else source
    variant = [source] if source in CITIES else []
    variant += [network] if network != "bisenet" else []
    return presets.single(
        recipe(source, network),
        name,
        folder=f"runs/{family}",
        variant="/".join(variant),
    )


def city_and_network(variant: str) -> tuple[str, str]:
    """('Rio', 'deeplab') of 'Rio/deeplab', ('Rio', 'bisenet') of 'Rio'."""
    city, _, network = variant.partition("/")
    return city, network or "bisenet"
