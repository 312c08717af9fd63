"""Train the rows of a table of the paper and print them beside the paper's numbers.

    python -m tufl_jax.sweep --table table3                         # on the streets
    python -m tufl_jax.sweep --table table5 --rows row1,row3 --seeds 0,1
    python -m tufl_jax.sweep --table table3 --config configs/synthia.py --workdir runs/t

The rows are in tufl_jax/paper.py. --config is a recipe with the runs source, stage1
and stage2: the proposed method, which the rows change. Each seed has a folder in the
workdir and each run one in it, named after what it changes: finished runs are not
repeated, also not by other tables, and the same command continues a stopped sweep.
Writes TABLE.txt, TABLE.csv and TABLE.png into the workdir after every run.
"""

import csv
import functools
import io
import pathlib
import statistics

from absl import app, flags
from ml_collections import ConfigDict

from tufl_jax import cli, paper, pictures, recipe
from tufl_jax.errors import UserError

CONFIG = cli.define_config()
TABLE = flags.DEFINE_string("table", None, f"One of {', '.join(paper.TABLES)}.")
ROWS = flags.DEFINE_list("rows", [], "Names of rows, or row1, row2, ...; all if empty.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Numbers; each is a training of every row.")
WORKDIR = flags.DEFINE_string("workdir", "runs/sweep", "Folder of all runs.")

MEAN_NAMES = {"miou": "mIoU", "miou_16": "mIoU", "miou_13": "mIoU*"}


def main(_) -> None:
    """Train what is missing and print the table."""
    if not TABLE.value:
        raise UserError(f"say --table, one of {', '.join(paper.TABLES)}")
    rows = paper.row_names(TABLE.value, ROWS.value)
    seeds = parse_seeds(SEEDS.value)
    workdir = pathlib.Path(WORKDIR.value)
    recipes = {seed: with_seed(CONFIG.value, seed, rows) for seed in seeds}
    results = {row: [] for row in rows}
    for seed, (config, runs) in recipes.items():
        for run, result in recipe.train_runs(config, workdir / f"seed{seed}"):
            for row in (row for row in rows if runs[row] == run):
                results[row].append(result)
            write(workdir, results)
    write(workdir, results)
    print(text(results))
    print(f"\ntables: {workdir}/{TABLE.value}.txt, .csv, .png")


def parse_seeds(texts: list[str]) -> list[int]:
    """UserError for what is no seed, and for one given twice."""
    if not texts or not all(text.isdigit() for text in texts):
        raise UserError(f"--seeds={','.join(texts)}: give numbers such as 0,1")
    if len(set(texts)) < len(texts):
        raise UserError(f"--seeds={','.join(texts)}: a seed is there twice")
    return [int(text) for text in texts]


def with_seed(base: ConfigDict, seed: int, rows: list[str]):
    """The recipe of the rows with another seed, and {row: run}."""
    config, runs = paper.recipe_of(base, TABLE.value, rows)
    config.seed = seed
    return config, runs


def write(workdir: pathlib.Path, results: dict[str, list[dict]]) -> None:
    """The table with what there is so far."""
    name = TABLE.value
    pictures.write_atomically(workdir / f"{name}.txt", (text(results) + "\n").encode())
    pictures.write_atomically(workdir / f"{name}.csv", as_csv(results).encode())
    header, lines = cells(results)
    title = paper.table(name).title
    picture = pictures.table_picture(header, lines, title=title)
    pictures.save_png(picture, workdir / f"{name}.png")


def measured(results: list[dict], metric: str) -> list[float]:
    """A mean of every finished seed, in percent.

    A network of 16 classes calls its mean over them 'miou'.
    """
    return [100 * r.get(metric, r["miou"]) for r in results]


def cells(results: dict[str, list[dict]]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: row, the paper's means, ours with their spread, seeds.

    The spread is the sample standard deviation over the seeds.
    """
    name = TABLE.value
    metrics = paper.metrics_of(name)
    header = ["row"]
    header += [f"{MEAN_NAMES[m]} paper" for m in metrics]
    header += [f"{MEAN_NAMES[m]} here" for m in metrics] + ["seeds"]
    lines = []
    for row, done in results.items():
        numbers = paper.printed(name, row)
        line = [row]
        line += [f"{numbers[m]:.1f}" if m in numbers else "-" for m in metrics]
        for metric in metrics:
            values = measured(done, metric)
            line.append(f"{statistics.mean(values):.1f}" if values else "-")
            if len(values) > 1:
                line[-1] += f" ± {statistics.stdev(values):.1f}"
        lines.append([*line, str(len(done))])
    return header, lines


def text(results: dict[str, list[dict]]) -> str:
    """The table for a terminal, and below it what each row changes."""
    name = TABLE.value
    header, lines = cells(results)
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]

    def aligned(line):
        first, *rest = zip(line, widths, strict=True)
        padded = [first[0].ljust(first[1])] + [x.rjust(wide) for x, wide in rest]
        return "  ".join(padded)

    rule = "-" * len(aligned(header))
    out = [paper.table(name).title, rule, aligned(header), rule]
    out += [aligned(line) for line in lines]
    out += [rule, "", "what each row changes:"]
    first = max(map(len, results))
    out += [f"  {row.ljust(first)}  {paper.described(name, row)}" for row in results]
    return "\n".join(out)


def as_csv(results: dict[str, list[dict]]) -> str:
    """One line a row and score: means and classes, all seeds, in percent."""
    file = io.StringIO()
    out = csv.writer(file)
    out.writerow(["row", "score", "paper", "mean", "spread", "seeds", "values"])
    name = TABLE.value
    for row, done in results.items():
        numbers = paper.printed(name, row)
        scores = {m: measured(done, m) for m in paper.metrics_of(name)}
        for scored in done[:1]:
            for of in scored["iou"]:
                found = [r["iou"][of] for r in done if r["iou"][of] is not None]
                scores[f"iou/{of}"] = [100 * value for value in found]
        for score, values in scores.items():
            mean = f"{statistics.mean(values):.2f}" if values else ""
            spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else ""
            every = " ".join(f"{value:.2f}" for value in values)
            line = [row, score, numbers.get(score, ""), mean, spread, len(values)]
            out.writerow([*line, every])
    return file.getvalue()


if __name__ == "__main__":
    parse = functools.partial(cli.parse_flags, default="configs/tables.py")
    app.run(cli.guarded(main), flags_parser=parse)
