"""The paper's experiments: every table and figure, each row as what it changes.

A base recipe holds the proposed method: runs 'source', 'stage1' and 'stage2'. A row is
one of these runs and the settings in which it differs, so the difference between two
rows is the difference of two lines below. `recipe_of` makes runs of rows on any base,
`paper_base` is the base with the paper's data, networks and numbers.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from tufl_jax import config as config_lib
from tufl_jax import paper_recipes
from tufl_jax.errors import UserError

TABLES_FOLDER = pathlib.Path(__file__).parent / "tables"
BISENET, DEEPLAB = "BiSeNet-ResNet18", "DeepLabV2-ResNet101"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table, or one point of a figure.

    Attributes:
      stage: the run of the base that it changes; 'oracle' trains on target labels.
      changes: {setting: value}, relative to that run.
      line: {column: value} that finds its line in the CSV; empty: not printed there.
      metrics: {mean of evaluation.json: column of the CSV}.
    """

    stage: str
    changes: Mapping[str, object] = dataclasses.field(default_factory=dict)
    line: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"miou_16": "miou16", "miou_13": "miou13"}
    )


@dataclasses.dataclass(frozen=True)
class Table:
    """A table or figure: its title, where its numbers are, its rows in order."""

    title: str
    rows: Mapping[str, Row]
    csv: str = ""
    base: tuple[str, str] = ("synthia", "bisenet")


FIXED = {"loss.threshold": "fixed"}
# Each loss with the weight that section IV-E found best for it (Fig. 7); 'confidence'
# is not among them and gets that of its kin [own].
LOSSES = {
    "shannon": {"loss.unsupervised": "shannon", "loss.lambda_u": 0.01},
    "maximum": {"loss.unsupervised": "maximum_squares", "loss.lambda_u": 0.005},
    "confidence": {"loss.unsupervised": "confidence", "loss.lambda_u": 0.01},
    "neutral": {"loss.unsupervised": "neutral", "loss.lambda_u": 0.01},
    "focal": {},  # the base's own, 0.05
}


def _compared(network: str, metrics: Mapping[str, str]) -> dict[str, Row]:
    """The rows of Tables I and II that this project trains."""

    def row(stage, changes=None, method=""):
        line = {"method": method, "network": network} if method else {}
        return Row(stage, changes or {}, line, metrics)

    if network == DEEPLAB:
        return {
            "source": row("source"),
            "stage1": row("stage1"),
            "stage2": row("stage2", method="Ours"),
            "oracle": row("oracle"),
        }
    entropies = {
        name: row("stage1", {**LOSSES[name], **FIXED}, name.capitalize())
        for name in ("shannon", "maximum", "confidence", "neutral")
    }
    return {
        "no_translation": row("source", {"data.source.translated": ""}),
        "baseline": row("source", method="Baseline (IST)"),
        **entropies,
        "stage1": row("stage1", method="Ours(stage 1)"),
        "stage2": row("stage2", method="Ours(stage 2)"),
        "oracle": row("oracle", method="Oracle"),
    }


def _point(loss: str, threshold: str) -> Row:
    """An entry of Table VI, mIoU* only."""
    metrics = {"miou_13": f"fixed_{threshold}"}
    changes = {**LOSSES[loss], **FIXED, "thresholds.init": float(threshold)}
    return Row("stage1", changes, {"loss": loss}, metrics)


def _abd(a: str, b: str, d: str) -> Row:
    """A line of Table V."""
    changes = {
        "thresholds.momentum": float(a),
        "thresholds.proportion": float(b),
        "thresholds.power": float(d),
    }
    return Row("stage1", changes, {"a": a, "b": b, "d": d})


_MEANS_19 = {"miou": "miou19"}
_MEANS_16 = {"miou_16": "miou16", "miou_13": "miou13"}
TABLES = {
    "table1": Table(
        "Table I: SYNTHIA to Cityscapes, BiSeNet",
        _compared(BISENET, _MEANS_16),
        "table1_synthia",
    ),
    "table1_deeplab": Table(
        "Table I: SYNTHIA to Cityscapes, DeepLabV2",
        _compared(DEEPLAB, _MEANS_16),
        "table1_synthia",
        ("synthia", "deeplab"),
    ),
    "table2": Table(
        "Table II: GTA5 to Cityscapes, BiSeNet",
        _compared(BISENET, _MEANS_19),
        "table2_gta5",
        ("gta5", "bisenet"),
    ),
    "table2_deeplab": Table(
        "Table II: GTA5 to Cityscapes, DeepLabV2",
        _compared(DEEPLAB, _MEANS_19),
        "table2_gta5",
        ("gta5", "deeplab"),
    ),
    "table3": Table(
        "Table III: the parts of the method",
        {
            "baseline": Row("source", {}, {"focal": "0", "threshold": "0"}),
            "focal": Row("stage1", FIXED, {"focal": "1", "threshold": "0"}),
            "threshold": Row("stage1", {}, {"threshold": "1", "mixing": "0"}),
            "mixing": Row("stage2", {}, {"threshold": "1", "mixing": "1"}),
        },
        "table3_ablation",
    ),
    "table4": Table(
        "Table IV: gamma of the focal loss, fixed threshold",
        {
            f"gamma{gamma}": Row(
                "stage1",
                {**FIXED, "loss.gamma": float(gamma)},
                {"gamma": f"{gamma}.0"},
            )
            for gamma in (1, 2, 3)
        },
        "table4_gamma",
    ),
    "table5": Table(
        "Table V: a, b and d of the thresholds",
        {
            "fixed": Row("stage1", FIXED, {"a": "1.0"}),
            **{
                f"a{a}_b{b}_d{d}": _abd(a, b, d)
                for a, b, d in (
                    ("0.9", "0.8", "4"),
                    ("0.9", "0.8", "8"),
                    ("0.9", "0.8", "10"),
                    ("0.9", "0.9", "8"),
                    ("0.9", "0.5", "8"),
                )
            },
        },
        "table5_threshold",
    ),
    "table6": Table(
        "Table VI: fixed and dynamic thresholds",
        {
            **{
                f"{loss}_{threshold}": _point(loss, threshold)
                for loss in LOSSES
                for threshold in ("0.2", "0.4", "0.6", "0.8")
            },
            "focal_dynamic": Row(
                "stage1", {}, {"loss": "focal"}, {"miou_13": "dynamic"}
            ),
        },
        "table6_fixed_vs_dynamic",
    ),
    # The curves are not printed as numbers. Thresholds are fixed, as in Table VI [own].
    "figure7": Table(
        "Fig. 7: lambda_u of each loss",
        {
            f"{loss}_{weight}": Row(
                "stage1", {**LOSSES[loss], **FIXED, "loss.lambda_u": float(weight)}
            )
            for loss in ("shannon", "maximum", "neutral", "focal")
            for weight in ("0.1", "0.05", "0.01", "0.005")
        },
    ),
}


def table(name: str) -> Table:
    """The table of that name; UserError with the list of them for another."""
    if name not in TABLES:
        raise UserError(f"no table '{name}': choose one of {', '.join(TABLES)}")
    return TABLES[name]


def row_names(name: str, wanted: Sequence[str] = ()) -> list[str]:
    """The names of the wanted rows of a table, of all for none; 'row1' is the first.

    Raises UserError with the list of rows for one that is not there.
    """
    rows = list(table(name).rows)
    numbered = {f"row{i}": row for i, row in enumerate(rows, start=1)}
    for row in wanted:
        if row not in rows and row not in numbered:
            raise UserError(
                f"{name} has no row '{row}': choose row1 to row{len(rows)} or one of "
                f"{', '.join(rows)}"
            )
    return [numbered.get(row, row) for row in wanted] or rows


def printed(name: str, row: str) -> dict[str, float]:
    """The paper's numbers of a row in percent, {mean of evaluation.json: value}."""
    of, where = table(name), table(name).rows[row]
    if not where.line:
        return {}
    with open(TABLES_FOLDER / f"{of.csv}.csv", newline="") as file:
        lines = [
            line
            for line in csv.DictReader(file)
            if all(line[key] == value for key, value in where.line.items())
        ]
    return {
        metric: float(lines[0][column])
        for metric, column in where.metrics.items()
        if lines[0][column]
    }


def paper_base(name: str) -> ConfigDict:
    """The recipe of a table with the paper's data and numbers."""
    source, network = table(name).base
    return paper_recipes.recipe(source, network)


def recipe_of(
    base: ConfigDict, name: str, rows: Sequence[str] = ()
) -> tuple[ConfigDict, dict[str, str]]:
    """A recipe with the rows of a table on a base, and what they build on.

    Rows that train the same are one run, and a row without changes is the base's own.
    A run is named after what it changes, so it is the same run in every table.

    Args:
      base: a recipe with the runs 'source', 'stage1' and 'stage2'; 'oracle' is made
        from 'source' where it lacks one.
      name: of the table.
      rows: names of its rows; all for none.

    Returns:
      The recipe, and {row: name of its run}.

    Raises:
      UserError: no such table or row, or the base lacks a run.
    """
    config = ConfigDict(base.to_dict()).lock()
    runs = config.runs.to_dict()
    if "oracle" not in runs and "source" in runs:
        runs["oracle"] = _oracle(config)
    chosen = {}
    for row in row_names(name, rows):
        entry = table(name).rows[row]
        if entry.stage not in runs:
            raise UserError(f"the base recipe has no run '{entry.stage}' for {row}")
        chosen[row] = _add_run(config, runs, entry)
    needed = set(chosen.values())
    needed |= {config.data.source.translated} & runs.keys()
    for _ in range(2):  # stage 2 needs stage 1, which needs the source
        for run in list(needed):
            others = dict(config_lib.flatten(runs[run]))
            found = {others.get("init.run"), others.get("teacher.run")}
            needed |= found & runs.keys()
    # What others build on first, the oracle after the source.
    place = {"cyclegan": -1, "source": 0, "oracle": 1, "stage1": 2, "stage2": 3}
    order = [run for run in runs if run in needed]
    order.sort(key=lambda run: place.get(run, place[runs[run]["stage"]]))
    with config.unlocked():
        config.recipe = tuple(order)
        config.runs = ConfigDict({run: runs[run] for run in order})
    return config.lock(), chosen


def _add_run(config: ConfigDict, runs: dict, row: Row) -> str:
    """Put the run of a row into `runs`; its name."""
    with config.unlocked():
        config.runs = ConfigDict(runs)
    now = dict(config_lib.flatten(config_lib.run_config(config, row.stage).to_dict()))
    changed = {k: v for k, v in sorted(row.changes.items()) if now[k] != v}
    parts = [f"{key.rsplit('.', 1)[-1]}={_short(v)}" for key, v in changed.items()]
    run = "-".join([row.stage, *parts])
    runs[run] = _nested(runs[row.stage], changed)
    return run


def _short(value) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace(".", "_")


def _nested(run: dict, changes: Mapping[str, object]) -> dict:
    """A copy of a run with dotted settings put in."""
    run = ConfigDict(run).to_dict()
    for key, value in changes.items():
        *parents, leaf = key.split(".")
        node = run
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
    return run


def _oracle(config: ConfigDict) -> dict:
    """The run 'source' on the labels of the target."""
    source = config_lib.run_config(config, "source").data.source
    target = config_lib.run_config(config, "stage1").data.target
    kept = ("batch_size", "resize", "scales", "scale_width", "crop", "hflip")
    spec = {k: v for k, v in target.to_dict().items() if k not in kept}
    spec["batch_size"] = source.batch_size
    return _nested(
        config.runs.source.to_dict(),
        {f"data.source.{key}": value for key, value in spec.items()},
    )


def metrics_of(name: str) -> list[str]:
    """The means of evaluation.json that a table prints."""
    found = {m: None for row in table(name).rows.values() for m in row.metrics}
    return list(found)


def described(name: str, row: str) -> str:
    """A row in words: its run and the settings it changes."""
    entry = table(name).rows[row]
    changes = [f"{key}={value}" for key, value in entry.changes.items()]
    return " ".join([entry.stage, *changes])
