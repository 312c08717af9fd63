"""Figures about losses, confidences and thresholds.

    python -m tufl_jax.analysis --figure losses                       # Fig. 1
    python -m tufl_jax.analysis --figure confidence --workdir RUN     # Fig. 3
    python -m tufl_jax.analysis --figure thresholds --workdir RUN     # over training
    python -m tufl_jax.analysis --figure entropy --workdir RUN

RUN is the folder of one run, such as runs/demo/stage1. Writes FIGURE.png and FIGURE.pdf
into --output. Needs matplotlib: pip install 'tufl-jax[analysis]'.
"""

import argparse
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tufl_jax import (
    augment,
    cli,
    evaluation,
    labels,
    losses,
    ops,
    startup,
    thresholds,
)
from tufl_jax import config as config_lib
from tufl_jax.checkpoint import Checkpoints
from tufl_jax.data import pipeline
from tufl_jax.errors import UserError

FIGURES = ("losses", "confidence", "thresholds", "entropy")
TARGET = 0.6  # the weak view's probability in Fig. 1
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.dpi": 100,
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tufl_jax.analysis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--figure", required=True, choices=FIGURES)
    parser.add_argument("--workdir", help="folder of a run; not for 'losses'")
    parser.add_argument("--output", help="folder; default RUN/figures or figures")
    parser.add_argument(
        "--images", type=int, default=50, help="how many; 'entropy' shows at most 4"
    )
    args = parser.parse_args(argv)
    cli.set_up_logging()
    try:
        plt = load_matplotlib()
        figure = draw(plt, args.figure, args.workdir, max(args.images, 1))
        run = f"{args.workdir}/figures" if args.workdir else "figures"
        folder = pathlib.Path(args.output or run)
        folder.mkdir(parents=True, exist_ok=True)
        for ending in ("png", "pdf"):
            path = folder / f"{args.figure}.{ending}"
            figure.savefig(path, dpi=200, bbox_inches="tight")
            print(path)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def draw(plt, figure: str, workdir: str | None, images: int):
    """The matplotlib figure of that name; UserError without the run it needs."""
    if figure == "losses":
        return draw_losses(plt)
    if not workdir:
        raise UserError(f"--figure {figure} needs --workdir, the folder of a run")
    run = pathlib.Path(workdir)
    config = saved_config(run)
    if figure == "thresholds":
        return draw_thresholds(plt, config, *trajectories(run))
    if figure == "confidence":
        return draw_confidence(plt, config, run, images)
    return draw_entropy(plt, config, run, min(images, 4))


def load_matplotlib():
    """matplotlib.pyplot without a display, in our style."""
    try:
        import matplotlib
    except ImportError:
        raise UserError(
            "figures need matplotlib: pip install 'tufl-jax[analysis]'"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(STYLE)
    return plt


def saved_config(run: pathlib.Path) -> ConfigDict:
    """The config that a run was trained with."""
    path = run / "config.json"
    if not path.exists():
        raise UserError(f"no config.json in {run}: it is not the folder of a run")
    try:
        return config_lib.from_json(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not readable ({error})") from None


def binary_curves(count: int = 1999) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every loss of two classes as a function of the probability p of the first.

    Losses of two views are shown as in Fig. 1: the weak view is fixed at 0.6, and the
    entropy that reaches the weak view in training is taken of p as well.

    Returns:
      {'p': (p, p), name: (loss, d loss / d p)}, f64[count] each.
    """
    p = np.linspace(0.0, 1.0, count + 2)[1:-1].astype(np.float32)
    target = jnp.log(jnp.array([TARGET, 1 - TARGET]))

    def logits(x):
        return jnp.stack([jnp.log(x), jnp.log1p(-x)], -1)

    def two_views(**options):
        def loss(x):
            weak = jnp.broadcast_to(target, (*x.shape, 2))
            focal = losses.unsupervised_focal(weak, logits(x), **options)
            return focal + losses.shannon_entropy(logits(x))

        return loss

    functions = {
        "Shannon": lambda x: losses.shannon_entropy(logits(x)),
        "maximum squares": lambda x: losses.maximum_squares(logits(x)),
        "confidence": lambda x: losses.confidence_entropy(logits(x)),
        "neutral": two_views(gamma=0),
        **{f"focal {gamma}": two_views(gamma=gamma) for gamma in (1, 2, 3)},
        **{
            f"{kind} {gamma}": two_views(gamma=gamma, modulation=kind)
            for kind in ("argmax", "difference")
            for gamma in (1, 2)
        },
    }

    @jax.jit
    def both(x):
        # A pixel's loss by its own p is the gradient of the sum, but for 'confidence',
        # whose class masses move a little with every pixel.
        slopes = {
            name: jax.grad(lambda x, f=function: jnp.sum(f(x)))(x)
            for name, function in functions.items()
        }
        return {name: (f(x), slopes[name]) for name, f in functions.items()}

    curves = jax.device_get(both(p))
    curves = {
        name: tuple(np.asarray(one, np.float64) for one in pair)
        for name, pair in curves.items()
    }
    return {"p": (p, p), **curves}


def minimum(curves, name: str) -> float:
    """Where a curve of `binary_curves` is least.

    Between the two points around the least value at which the gradient changes its
    sign: near a minimum float32 values are all alike.
    """
    p, (value, slope) = curves["p"][0], curves[name]
    least = int(np.argmin(value))
    near = np.arange(max(least - 20, 0), min(least + 20, len(p) - 1))
    rising = near[(slope[near] < 0) & (slope[near + 1] >= 0)]
    if not len(rising):
        return float(p[least])
    i = rising[np.argmin(np.abs(rising - least))]
    share = slope[i] / (slope[i] - slope[i + 1])
    return float(p[i] + share * (p[i + 1] - p[i]))


def draw_losses(plt):
    """Fig. 1: losses and gradients, the paper's above and the release's below."""
    curves = binary_curves()
    p = curves["p"][0]
    rows = (
        (
            "equations of the paper",
            ("Shannon", "maximum squares", "confidence", "neutral")
            + ("focal 1", "focal 2", "focal 3"),
        ),
        (
            "released factor, one number per pixel",
            ("neutral", "argmax 1", "argmax 2", "difference 1", "difference 2"),
        ),
    )
    figure, axes = plt.subplots(2, 2, figsize=(10.5, 6.4), layout="constrained")
    for (title, names), (left, right) in zip(rows, axes, strict=True):
        for name in names:
            value, slope = curves[name]
            place = minimum(curves, name)
            inside = 0.01 < place < 0.99
            label = legend_name(name) + (f": min at {place:.3f}" if inside else "")
            (line,) = left.plot(p, value, label=label, lw=1.5)
            right.plot(p, slope, color=line.get_color(), lw=1.5)
            if inside:
                left.plot(place, value.min(), "o", ms=4, color=line.get_color())
        lowest = min(curves[name][0].min() for name in names)
        left.set(title=title, ylabel="loss", ylim=(lowest - 0.05, 1.6))
        right.set(title="gradient", ylabel="d loss / dp", ylim=(-3, 3))
        for axis in (left, right):
            axis.axvline(TARGET, color="0.5", lw=0.8, ls=":")
            axis.set(xlabel="p", xlim=(0, 1))
        named = [x for x in left.lines if not x.get_label().startswith("_")]
        right.legend(handles=named, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def legend_name(name: str) -> str:
    """'focal 1' as it is printed."""
    kind, _, gamma = name.rpartition(" ")
    return f"{kind}, γ = {gamma}" if gamma.isdigit() else name


def trajectories(run: pathlib.Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps and the logged thresholds of each class; UserError where there are none."""
    path = run / "metrics.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        if any(key.startswith("threshold/") for key in row):
            rows.append(row)
    if not rows:
        raise UserError(f"no thresholds in {path}: only stages 1 and 2 have them")
    names = [k for k in rows[0] if k.startswith("threshold/")]
    steps = np.array([row["step"] for row in rows])
    return steps, {
        name.removeprefix("threshold/"): np.array([row[name] for row in rows])
        for name in names
    }


def draw_thresholds(plt, config, steps, values):
    """Thresholds of all classes over the training."""
    colours = labels.of_config(config).legend()
    figure, axis = plt.subplots(figsize=(7.5, 4), layout="constrained")
    start = config.thresholds.init
    for name in sorted(values, key=lambda n: -values[n][-1]):
        axis.plot(
            [0, *steps],
            [start, *values[name]],
            label=f"{name} {values[name][-1]:.2f}",
            color=np.asarray(colours[name]) / 255,
            lw=1.6,
        )
    axis.axhline(start, color="0.4", lw=0.8, ls="--")
    axis.set(xlabel="step", ylabel="threshold", xlim=(0, steps[-1]), ylim=(0, 1))
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return figure


def load_network(config, run: pathlib.Path):
    """Network, its variables and thresholds, and the labelled set of a run."""
    model = startup.build_model(config)
    checkpoints = Checkpoints(run, read_only=True)
    try:
        _, variables = checkpoints.restore_variables()
    finally:
        checkpoints.close()
    alpha = variables.pop("thresholds")
    return model, variables, alpha, startup.open_dataset(config, "eval", labelled=True)


def confidence_statistics(
    config, model, variables, alpha, images
) -> dict[str, np.ndarray]:
    """What the network's pixels of each predicted class look like.

    Args:
      config: the run's.
      model: the network.
      variables: its variables.
      alpha: f32[C], class thresholds.
      images: u8[H, W, 3] each.

    Returns:
      f64[C] each: 'pixels', 'confidence' (mean), 'fixed' and 'adaptive' (shares above
      config.thresholds.init and above alpha); NaN for a class without pixels.
    """
    fixed = jnp.full(len(alpha), config.thresholds.init)

    @jax.jit
    def count(image):
        image = image[None].astype(jnp.float32)
        if config.eval.resize is not None:
            image = ops.resize_bilinear(image, tuple(config.eval.resize))
        image = augment.normalize(image, mode=config.model.normalization)
        logits = model.apply(variables, image, train=False)[0]
        confidence = jnp.max(jax.nn.softmax(logits), -1)
        one_hot = jax.nn.one_hot(jnp.argmax(logits, -1), len(alpha))
        parts = (
            jnp.ones_like(confidence),
            confidence,
            thresholds.select(logits, fixed),
            thresholds.select(logits, alpha),
        )
        return [jnp.sum(one_hot * x[..., None], axis=(0, 1, 2)) for x in parts]

    totals = np.zeros((4, len(alpha)))
    for image in images:
        totals += np.stack(jax.device_get(count(image)))
    pixels = totals[0]
    shares = np.where(pixels > 0, totals[1:] / np.maximum(pixels, 1), np.nan)
    return {
        "pixels": pixels,
        "confidence": shares[0],
        "fixed": shares[1],
        "adaptive": shares[2],
    }


def draw_confidence(plt, config, run: pathlib.Path, count: int):
    """Fig. 3: confidence of each class, and how many of its pixels are used."""
    model, variables, alpha, source = load_network(config, run)
    indices = range(min(count, len(source)))
    items = pipeline.read_ahead(source, indices, num_threads=config.data.num_threads)
    statistics = confidence_statistics(
        config, model, variables, alpha, (item["image"] for item in items)
    )
    names = labels.of_config(config).names
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(8.5, 5), sharex=True, layout="constrained"
    )
    x = np.arange(len(names))
    start = config.thresholds.init
    top.bar(x, statistics["confidence"], color="#9db8d9", label="average confidence")
    top.plot(x, alpha, "_", ms=15, mew=2.5, color="#b5382e", label="adaptive threshold")
    top.axhline(start, color="0.3", lw=1, ls="--", label=f"fixed threshold {start:g}")
    top.set(ylabel="confidence", ylim=(0, 1.02))
    bottom.bar(x - 0.2, 100 * statistics["fixed"], 0.4, color="0.6", label="fixed")
    bottom.bar(
        x + 0.2, 100 * statistics["adaptive"], 0.4, color="#b5382e", label="adaptive"
    )
    bottom.set(ylabel="pixels above threshold, %", ylim=(0, 102))
    bottom.set_xticks(x, names, rotation=45, ha="right")
    for axis in (top, bottom):
        axis.grid(axis="x", visible=False)
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8)
    return figure


def draw_entropy(plt, config, run: pathlib.Path, count: int):
    """Images, predictions and where the network is unsure."""
    model, variables, _, source = load_network(config, run)
    step = max(len(source) // count, 1)
    indices = list(range(step // 2, len(source), step))[:count]
    items = evaluation.Evaluator(config, model, source).predictions(variables, indices)
    classes = labels.of_config(config)
    height, width = items[0]["image"].shape[:2]
    figure, axes = plt.subplots(
        len(items),
        3,
        figsize=(9, 3.1 * len(items) * height / width + 0.5),
        layout="constrained",
        squeeze=False,
    )
    for row, item in zip(axes, items, strict=True):
        shown = (item["image"], classes.colorize(item["prediction"]))
        for axis, picture in zip(row, shown, strict=False):
            axis.imshow(picture)
        map_ = row[2].imshow(item["entropy"], cmap="magma", vmin=0, vmax=1)
        for axis in row:
            axis.set_axis_off()
    for axis, title in zip(axes[0], ("image", "prediction", "entropy"), strict=True):
        axis.set_title(title)
    figure.colorbar(map_, ax=axes[:, 2], shrink=0.7, label="entropy / log C")
    return figure


if __name__ == "__main__":
    sys.exit(main())
