"""The one schema of every setting, with the paper's values as defaults.

A config file returns `base()` with the fields it changes. The dictionary is
locked: a key that is not here is an error, in files and on the command line.
Numbers marked [P] are the paper's (section IV), [R] the authors' release, [own]
a choice of this project where both are silent.
"""

import difflib
import os
from collections.abc import Iterator

from ml_collections import ConfigDict, config_dict

from tufl_jax.errors import UserError

# Settings that may differ between two starts in one workdir: they change where or
# how fast something is read, never a number.
MACHINE_KEYS = (
    "data.num_threads",
    "data.num_workers",
    "data.source.root",
    "data.target.root",
    "data.eval.root",
    "data.source.format",
    "data.target.format",
    "data.eval.format",
    "data.source.translated",
    "data.target.translated",
    "data.eval.translated",
    "init.run",
    "init.pretrained",
    "teacher.run",
    "train.keep_checkpoints",
)


def _dataset(**changes) -> ConfigDict:
    spec = ConfigDict(
        dict(
            # streets_rendered | streets_camera (built in) | cityscapes | gta5 |
            # synthia | crosscity | folder (own data: images, labels, ids below)
            name="streets_rendered",
            # 'folder': files as they were unpacked, or their zip archives;
            # 'prepared': what `python -m tufl_jax.prepare` has written
            format="folder",
            # folder of the files, or data_dir of what was prepared; environment
            # variables such as $CAMVID are expanded
            root="",
            # cityscapes: train | val | test | train_extra; gta5: all, or with its
            # split.mat train | val | test; synthia: all; crosscity: train | test
            split="train",
            city="",  # crosscity: Rio | Rome | Taipei | Tokyo
            annotation="gtFine",  # cityscapes: gtFine | gtCoarse (all of train_extra)
            # Paths below root, such as 'frames/{split}/{name}.jpg' and
            # 'masks/{split}/{name}.png'; `{name}.*` takes .png, .jpg and .jpeg. A known
            # data set needs them only where its folders were rearranged.
            images="",
            labels="",
            # Folder of {name}.png (or .jpg) that replace the images, such as the one
            # that python -m tufl_jax.translate writes; labels and names stay
            translated="",
            # Pairs (raw id of the label files, class name or ''), instead of the data
            # set's own table; folder: empty if the files hold class indices
            ids=(),
            other_ids="error",  # ids that no table has: 'error' | 'ignore'
            start=0.0,  # use the items from this share of the sorted list ...
            stop=1.0,  # ... up to this one
            length=2000,  # streets only: number of images
            size=(96, 192),  # streets only: rendered (height, width)
        )
    )
    spec.update(changes)
    return spec


def _training_dataset(**changes) -> ConfigDict:
    spec = _dataset()
    spec.update(
        dict(
            batch_size=2,  # images a step over all devices [P: 2 + 2]
            resize=config_dict.placeholder(
                tuple
            ),  # (height, width) all images get first
            scales=(0.75, 1.0, 1.25, 1.5),  # one is drawn per image [R]
            # (least, most) width in pixels, drawn uniformly with the aspect kept,
            # instead of scales; empty: scales. ProDA: (1100, 3300), after its resize
            scale_width=(),
            crop=(640, 1280),  # (height, width) [R]
            hflip=0.5,  # probability [R]
        )
    )
    spec.update(changes)
    return spec


def base() -> ConfigDict:
    """The full schema, locked. Defaults: BiSeNet, SYNTHIA sizes, stage 'source'."""
    c = ConfigDict()
    c.stage = "source"  # source | stage1 | stage2 | cyclegan
    c.seed = 0
    c.num_classes = 19  # 19, 16 (SYNTHIA) or 13 (Cross-City), or that of c.classes
    c.classes = ConfigDict()  # empty: the Cityscapes classes that num_classes means
    c.classes.names = ()  # own classes, in the order of their indices
    c.classes.colours = ()  # (red, green, blue) of each; empty: chosen for you

    c.model = ConfigDict()
    c.model.name = "bisenet"  # bisenet | deeplabv2
    c.model.width = 64  # channels of the stem; 64 is the published network
    # More outputs, trained and averaged with the main one. None: bisenet has two [R],
    # deeplabv2 none; True gives its sum heads one on stage 3 (multi-level AdaptSegNet).
    c.model.aux_heads = config_dict.placeholder(bool)
    # bisenet. None: leaky_relu, slope 0.01 [R]; 'relu' for newer BiSeNets.
    c.model.activation = config_dict.placeholder(str)
    # deeplabv2. None: proda, the paper's network [P Table VII]; 'sum4': ADVENT and
    # others; 'sum2': AdaptSegNet, DACS, MaxSquare, whose loop returns after two.
    c.model.head = config_dict.placeholder(str)
    # deeplabv2. None: caffe, a bottleneck strides in its first 1x1; 'torch': in its
    # 3x3, as torchvision's weights were trained.
    c.model.stride_place = config_dict.placeholder(str)
    # deeplabv2. True: a batch norm before the head, as with ProDA's SimCLR weights.
    c.model.bn_pretrain = config_dict.placeholder(bool)
    # deeplabv2. What the backward pass computes again instead of keeping: 'norms' and
    # activations, or all inside a bottleneck: 'blocks'. None: nothing. docs/memory.md.
    c.model.remat = config_dict.placeholder(str)
    # Of convolutions and activations: float32 | bfloat16. Parameters, statistics,
    # logits, softmax, thresholds and losses are float32 always.
    c.model.dtype = "float32"
    # Input convention: imagenet (RGB, mean and deviation; TUFL, torchvision weights) |
    # unit (RGB / 255; ProDA) | caffe (BGR, mean only; AdaptSegNet, ADVENT, DACS).
    c.model.normalization = "imagenet"
    # 'frozen': running statistics fixed, scale and offset trained [R];
    # 'trained': statistics of the whole batch on all devices; 'per_domain': source and
    # target images apart, running averages of the target (separate passes: ProDA).
    c.model.batch_norm = "trained"
    # Whether its scale and offset are trained. False with 'frozen' freezes all of it;
    # False with 'per_domain' is AdaptSegNet, ADVENT and DACS: batch statistics only.
    c.model.batch_norm_affine = True

    c.init = ConfigDict()
    c.init.run = ""  # workdir whose last checkpoint gives params and statistics
    c.init.pretrained = ""  # weights file (.npz, .safetensors, .pth) for the backbone
    c.teacher = ConfigDict()
    # stage2: workdir of the stage-1 network (pseudo-labels); cyclegan with
    # style.lambda_semantic: of a run with the network of config.model
    c.teacher.run = ""

    c.data = ConfigDict()
    c.data.source = _training_dataset()
    c.data.target = _training_dataset(name="streets_camera")
    c.data.eval = _dataset(name="streets_camera", split="val", length=200)
    c.data.num_threads = 2  # decoding threads
    c.data.num_workers = 0  # decoding processes; 0: threads only

    c.augment = ConfigDict()
    c.augment.source = True  # colour jitter, shadow, noise, blur on the source [R]
    # beta of Fourier domain adaptation: before that, source images get the lowest
    # frequencies of the batch's target images; published 0.01 to 0.09; 0: off [P]
    c.augment.fourier = 0.0
    c.augment.rotation = 30.0  # degrees, target views [R]
    c.augment.shear = 5.0  # degrees [R]
    c.augment.scale = (0.8, 1.2)  # [R]
    c.augment.flip = 0.5  # probability [R]

    c.loss = ConfigDict()
    # Published code differs from the paper in many places: presets.released sets its
    # values [R] together, docs/paper.md lists them with their sources.
    c.loss.unsupervised = "focal"  # eq. 3-5; all: validation.UNSUPERVISED
    c.loss.gamma = 2.0  # eq. 4 [P]
    c.loss.modulation = "per_class"  # eq. 4; 'argmax' | 'difference' are the release's
    # Factor of each class's term in all losses [R: 1 / log(1.1 + share of pixels),
    # twice that for rare classes]; empty: none [P]. It scales what lambda_u weighs.
    c.loss.class_weights = ()
    # 'dynamic': eq. 8-9 per class | 'fixed' | 'none': all pixels in the frame
    c.loss.threshold = "dynamic"
    c.loss.lambda_u = 0.05  # weight of the unsupervised loss [P]
    c.loss.lambda_m = 1.0  # weight of the mixing loss [P]
    c.loss.temperature = 1.0  # divides the weak logits before loss and thresholds
    # Share of the pixels above the threshold that is averaged, hardest first [R: 0.25
    # for its 'shannon' and 'neutral' baselines, 1.0 for all others]
    c.loss.hardest = 1.0
    # maximum_squares: pixels weigh (n / n_c)^ratio with n_c of the n pixels of their
    # image predicted as their class, 0.2 in its publication; 0: all alike
    c.loss.image_wise_ratio = 0.0
    c.loss.squares_sign = -1.0  # maximum_squares; 1.0 [R] flattens predictions
    c.loss.epsilon = 0.0  # inside log q of 'focal' and 'neutral' [R: 1e-30]
    c.loss.released_floor = (
        False  # True: 1e-8 under pixel values, no gradient there [R]
    )
    c.loss.supervised = "cross_entropy"  # | 'ohem' (upstream BiSeNet)
    c.loss.ohem_probability = 0.7  # of the true class, below which a pixel is hard
    c.loss.ohem_share = 1 / 16  # of all pixels that are averaged at least
    # Supervised and mixing loss: mean over 'labelled' pixels, or 'all' with 0 at
    # ignored ones [R]
    c.loss.mean_over = "labelled"

    c.thresholds = ConfigDict()
    c.thresholds.init = 0.8  # alpha_0 = t; also the threshold when fixed [P]
    c.thresholds.momentum = 0.9  # a, eq. 8 [P]
    c.thresholds.proportion = 0.8  # b, eq. 9 [P]
    c.thresholds.power = 8.0  # d, eq. 9 [P]
    c.thresholds.variant = "paper"  # 'released': index by alpha^d
    c.thresholds.decay = 0.0  # > 0: a of step k is 1 - a e^(-k decay) [R, optional]
    # 'step': once, from the main head [own] | 'head': by every head in turn, so three
    # times a step with BiSeNet [R]
    c.thresholds.update_per = "step"
    # Target pixels that count, in the lists of eq. 9 and in the loss: 'valid' in the
    # frame [own] | 'all', with the padding of the warp as unsure pixels of class 0 [R]
    c.thresholds.pixels = "valid"
    c.thresholds.mask = "own"  # a head's pixels by its own confidence [R] | the 'main'

    c.mixing = ConfigDict()
    c.mixing.long_tail_draws = 1  # classes drawn with softmax(1/alpha) per image [P]
    c.mixing.long_tail_extra = 0  # up to so many more; draws 2 and extra 2: 2 to 4 [R]
    c.mixing.long_tail_probability = 1.0  # of pasting into an image [R: 0.3]
    # Classes fewer from the source image where something was pasted [R: 2]
    c.mixing.long_tail_fewer = 0
    # 'half': pasted first, then half of all classes is taken [P] | 'always': half of
    # the image's own classes and all of what was pasted [R]
    c.mixing.pasted = "half"
    c.mixing.ignored_is_class = False  # True: 255 can be one of the chosen [R]
    c.mixing.donors_per_class = 2  # crops of each class kept on the device [own]
    c.mixing.donors_per_step = 1  # of them replaced at each step [own]
    c.mixing.min_pixels = 64  # of a class for its image to be a donor [own]
    c.mixing.boundary_size = 7  # eq. 11 [P]; 0: no boundary [R default]
    c.mixing.boundary_weight = 2.0  # eq. 11 [P]
    # Weight of target pixels: 'one', eq. 11 [P] | 'confident_share' of their image,
    # above mixing.confidence (DACS) [R]
    c.mixing.target_weight = "one"
    c.mixing.confidence = 0.968  # [R]
    c.mixing.strong = True  # the strong colour chain on the mixed image [R]

    c.style = ConfigDict()  # stage cyclegan; values of its publication
    c.style.width = 64  # channels of the first layer
    c.style.blocks = 9  # residual blocks of a generator
    c.style.lambda_cycle = 10.0
    c.style.lambda_identity = 0.5  # times lambda_cycle; 0: not computed
    # Of keeping what config.teacher.run sees in an image (CyCADA), 0: not computed
    c.style.lambda_semantic = 0.0
    c.style.pool = 50  # earlier translations that discriminators may see; 0: none
    c.style.samples = 4  # images of each domain in samples.png and evaluation.json
    # (height, width) in pixels that are translated at a time, blended over `overlap`
    # pixels; None: whole images
    c.style.tile = config_dict.placeholder(tuple)
    c.style.overlap = 64

    c.optim = ConfigDict()
    c.optim.name = "sgd"  # [P]; 'adamw' for short trainings from random weights
    c.optim.learning_rate = 2.5e-4  # [P], source; 0.5e-5 in stages 1 and 2
    c.optim.head_multiplier = 10.0  # BiSeNet: FFM and output heads (upstream)
    # Factor of everything else. Published DeepLabV2 code lists each backbone tensor
    # three times (AdaptSegNet's family, ProDA but for its stage 1), so torch steps it
    # three times: 3.0 gives their real rates. BiSeNet's code does not: 1.0. TUFL's
    # release moves everything at ten times the nominal rate: 10.0 [R].
    c.optim.backbone_multiplier = 1.0
    c.optim.momentum = 0.9  # [P]; b1 of adamw
    c.optim.weight_decay = 5e-4  # convolution kernels only [P, R]
    c.optim.warmup_steps = 100  # [P]; 0 in published commands, 0.05 num_steps else [R]
    c.optim.warmup_start = 1e-5  # exponential from here [R]; 0: linear from 0
    c.optim.power = 0.9  # poly schedule [P]
    c.optim.constant = 0.0  # share of the steps before it begins; CycleGAN: 0.5

    c.train = ConfigDict()
    c.train.num_steps = 20_000  # [P]
    # Microbatches a step: the network sees each batch in this many parts, one after the
    # other, and computes every part twice. The losses and thresholds are of the whole
    # batch, so the gradient is exact, but batch statistics are those of the part.
    c.train.accumulate = 1
    c.train.log_every = 100
    c.train.checkpoint_every = 1000
    c.train.eval_every = 5000  # 0: only at the end
    c.train.summary_every = 1000  # pictures; 0: none
    c.train.keep_checkpoints = 2

    c.eval = ConfigDict()
    c.eval.batch_size = 4
    c.eval.resize = config_dict.placeholder(tuple)  # network input; None: full size
    # Factors of the network input; probabilities are averaged at label size. The
    # headline is one scale; 'multi-scale' [R]: 0.5 to 1.75 in steps of 0.25 and flip.
    c.eval.scales = (1.0,)
    c.eval.flip = False  # every scale also as its mirror image
    # (height, width) of the network's input that it sees at a time, averaged where
    # windows overlap; None: all of it. [R]: (1024, 1024)
    c.eval.window = config_dict.placeholder(tuple)
    c.eval.stride = config_dict.placeholder(tuple)  # None: 5/6 of the window [R]
    # With a window: (height, width) in label pixels that memory is needed for [own]
    c.eval.tile = (2048, 2048)

    # A recipe is a chain of trainings in one command: the names of the runs in
    # order, and for each the fields in which it differs from the rest of the file.
    c.recipe = ()
    c.runs = ConfigDict()
    return c.lock()


def run_config(config: ConfigDict, name: str) -> ConfigDict:
    """The full config of the run `name` of a recipe.

    Raises UserError for a run that `config.runs` lacks or a key not in the schema.
    """
    if name not in config.runs:
        raise UserError(f"recipe names '{name}', which config.runs lacks")
    run = ConfigDict(config.to_dict()).lock()
    changes = config.runs[name].to_dict()
    run.recipe = ()
    with run.unlocked():
        run.runs = ConfigDict()
    for key, value in flatten(changes):
        set_key(run, key, value)
    return run


def domains(config: ConfigDict) -> tuple[str, ...]:
    """The image sets whose images a training step reads."""
    alone = config.stage == "source" and not config.augment.fourier
    return ("source",) if alone else ("source", "target")


def flatten(tree: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted key, value) of every leaf, sorted by key."""
    for key in sorted(tree):
        if isinstance(tree[key], dict):
            yield from flatten(tree[key], f"{prefix}{key}.")
        else:
            yield prefix + key, tree[key]


def set_key(config: ConfigDict, key: str, value) -> None:
    """Set a dotted key; raises UserError that suggests the near one."""
    *parents, leaf = key.split(".")
    node = config
    for part in parents:
        if part not in node or not isinstance(node[part], ConfigDict):
            raise unknown_key(config, key)
        node = node[part]
    if leaf not in node:
        raise unknown_key(config, key)
    try:
        node[leaf] = value
    except TypeError as error:
        raise UserError(f"config.{key}: {error}".splitlines()[0]) from None


def unknown_key(config: ConfigDict, key: str) -> UserError:
    """The error for a key that the schema lacks."""
    known = [name for name, _ in flatten(config.to_dict())]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if not near:  # right leaf, wrong room (or the other way round)
        leaf = key.rsplit(".", 1)[-1]
        names = {name.rsplit(".", 1)[-1]: name for name in known}
        near = [names[n] for n in difflib.get_close_matches(leaf, names, n=1)]
    hint = f"; did you mean config.{near[0]}?" if near else ""
    return UserError(f"unknown setting config.{key}{hint}")


def differences(saved: dict, config: ConfigDict) -> list[str]:
    """Lines 'key: saved -> now' for settings that change numbers."""
    then = dict(flatten(saved))
    now = dict(flatten(as_json(config)))
    for key in MACHINE_KEYS:  # whether weights are given matters, from where does not
        then[key], now[key] = bool(then.get(key)), bool(now.get(key))
    return [
        f"{key}: {then.get(key, 'absent')} there, {now.get(key, 'absent')} here"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
    ]


def as_json(config: ConfigDict) -> dict:
    """Plain dictionary with lists for tuples, as json gives it back."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return plain(config.to_dict())


def from_json(content: dict) -> ConfigDict:
    """The config whose `as_json` is `content`; UserError for an unknown key."""

    def plain(value):
        return tuple(map(plain, value)) if isinstance(value, list) else value

    config = base()
    for key, value in flatten(content):
        set_key(config, key, plain(value))
    return config


def expand(path: str, *, key: str) -> str:
    """Expand ~ and $VARIABLES in the path of config key `key`.

    Raises UserError when a variable is not set.
    """
    expanded = os.path.expandvars(os.path.expanduser(path))
    if "$" in expanded:
        raise UserError(
            f"config.{key} is '{path}' and a variable in it is not set: "
            f"export it or pass --config.{key}=FOLDER"
        )
    return expanded
