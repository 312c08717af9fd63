"""A chain of trainings in one command, and the table and pictures at its end."""

import pathlib
from collections.abc import Iterator

import jax
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from tufl_jax import config as config_lib
from tufl_jax import (
    evaluation,
    labels,
    metrics,
    pictures,
    startup,
    train,
    translation,
    validation,
)
from tufl_jax import workdir as workdirs

SHEET_ROWS = 6


def run_recipe(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, dict]:
    """Train the runs of config.recipe in order, each in its folder of `workdir`.

    Finished runs are skipped and begun ones continue. Leaves `results.json`,
    `results.txt` and `contact_sheet.png` beside the runs.

    Returns:
      {run: content of its evaluation.json}.

    Raises:
      UserError: any run's config or data is wrong; found before the first one starts.
    """
    workdir = pathlib.Path(workdir)
    results = dict(train_runs(config, workdir))
    runs = {name: resolve(config, name, workdir) for name in config.recipe}
    segmenting = {
        name: run for name, run in runs.items() if run.stage in validation.SEGMENTATION
    }
    sheet = contact_sheet(segmenting, workdir)
    if jax.process_index() == 0:
        table = results_table(results)
        pictures.write_atomically(workdir / "results.txt", table.encode())
        evaluation.write_json(workdir / "results.json", results)
        pictures.save_png(sheet, workdir / "contact_sheet.png")
    return results


def train_runs(config: ConfigDict, workdir: pathlib.Path) -> Iterator[tuple[str, dict]]:
    """(run, content of its evaluation.json) of each, when it is finished.

    Raises:
      UserError: as `run_recipe`.
    """
    runs = {name: resolve(config, name, workdir) for name in config.recipe}
    # {folder of translated images that a run reads: the run that makes them}
    folders = {str(workdir / name / translation.FOLDER): name for name in runs}
    read = {run.data.source.translated for run in runs.values()}
    made = {folder: name for folder, name in folders.items() if folder in read}
    for name, run in runs.items():
        validation.validate(run)
        workdirs.check_workdir(run, workdir / name)
        startup.open_data(_as_it_is(run, made))
    for name, run in runs.items():
        logging.info("recipe: %s (%s)", name, workdir / name)
        result = train.train(run, workdir / name)
        if name in made.values():
            translation.translate_source(
                run, workdir / name, workdir / name / translation.FOLDER
            )
        yield name, result


def _as_it_is(run: ConfigDict, made: dict[str, str]) -> ConfigDict:
    """The run without the translated images that the recipe makes only later."""
    if run.data.source.translated not in made:
        return run
    run = ConfigDict(run.to_dict())
    run.data.source.translated = ""
    return run


def resolve(config: ConfigDict, name: str, workdir: pathlib.Path) -> ConfigDict:
    """The run's full config, with names of other runs turned into their workdirs."""
    run = config_lib.run_config(config, name)
    for section in (run.init, run.teacher):
        if section.run in config.recipe:
            section.run = str(workdir / section.run)
    source = run.data.source
    if source.translated in config.recipe:
        source.translated = str(workdir / source.translated / translation.FOLDER)
    return run


def results_table(results: dict[str, dict]) -> str:
    """IoU of every class and the means, in points, one column per run.

    A run without classes has a line of its own below.
    """
    others = {name: result for name, result in results.items() if "iou" not in result}
    notes = [f"{name}: {style_line(result)}" for name, result in others.items()]
    results = {name: r for name, r in results.items() if name not in others}
    if not results:
        return "\n".join(notes)
    first = next(iter(results.values()))
    means = [key for key in metrics.MEANS if key in first]
    classes = list(first["iou"])
    columns = {
        name: [result["iou"][c] for c in classes] + [result[m] for m in means]
        for name, result in results.items()
    }
    size = first["label_size"]
    size = f"{size[0]} x {size[1]} pixels" if size else "each image's own size"
    families = metrics.FAMILIES if len(means) > 1 else ()
    notes = [*families, f"labels: {size}", *notes]
    return "\n".join([pictures.text_table(classes + means, columns), "", *notes])


def style_line(result: dict) -> str:
    """The errors of a style translation in one line."""
    errors = (f"{k} {v:.1f}" for k, v in result.items() if isinstance(v, float))
    return f"mean error of 255 at step {result['step']}: {', '.join(errors)}"


def contact_sheet(runs: dict[str, ConfigDict], workdir: pathlib.Path) -> Image.Image:
    """Picture of image, ground truth, first and last run's output, its entropy."""
    first, last = next(iter(runs)), adapted(runs)
    items = {}
    for name in (first, last):
        run = runs[name]
        source = startup.open_dataset(run, "eval", labelled=True)
        model = startup.build_model(run)
        _, variables = startup.load_run(run, model, "workdir", workdir / name)
        step = max(len(source) // SHEET_ROWS, 1)
        indices = range(step // 2, len(source), step)[:SHEET_ROWS]
        items[name] = evaluation.Evaluator(run, model, source).predictions(
            variables, indices
        )
    classes = labels.of_config(runs[first])
    truth = labels.ground_truth_of_config(runs[first])
    rows = [
        [
            a["image"],
            truth.colorize(a["label"]),
            classes.colorize(a["prediction"]),
            classes.colorize(b["prediction"]),
            pictures.color_map(b["entropy"]),
        ]
        for a, b in zip(items[first], items[last], strict=True)
    ]
    titles = ["image", "ground truth", first, last, f"entropy of {last}"]
    return pictures.contact_sheet(rows, titles, legend=classes.legend())


def adapted(runs: dict[str, ConfigDict]) -> str:
    """The last run that did not train on labels of the target (an oracle did)."""
    names = [name for name, run in runs.items() if run.stage != "source"]
    return names[-1] if names else list(runs)[-1]
