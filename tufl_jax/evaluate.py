"""Evaluate a finished or running training on the labelled set of its config.

    python -m tufl_jax.evaluate --config configs/camvid_stage2.py --workdir runs/s2
    python -m tufl_jax.evaluate --config configs/demo.py --run stage2
    python -m tufl_jax.evaluate --config configs/camvid_stage2.py --weights tufl.pth

Reads the newest good checkpoint of the workdir (for a run of a recipe, its folder in
the recipe's), prints IoU per class and writes `evaluation.json` there. Where the run's
log knows a better step, that is said, and if its checkpoint is still there, it is
evaluated as well (`evaluation_best.json`); the newest stays the headline.

Another set or protocol is a setting away, and then needs a name of its own:
--config.data.eval.root=FOLDER --output evaluation_night.json
--config.eval.window='(1024, 1024)' --config.eval.flip --output evaluation_flip.json

--export FOLDER also writes every prediction, as label ids for the Cityscapes benchmark
and in colour; with --unlabelled for a set without labels. The same command continues an
evaluation that was stopped.

With --weights the network comes from a file and no workdir is needed; the result is
printed, and written where --output says.
"""

import pathlib

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from tufl_jax import (
    cli,
    evaluation,
    export,
    labels,
    recipe,
    startup,
    validation,
)
from tufl_jax import config as config_lib
from tufl_jax import workdir as workdirs
from tufl_jax.errors import UserError
from tufl_jax.journal import Journal
from tufl_jax.models import pretrained

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default runs/<name of the config file>."
)
RUN = flags.DEFINE_string("run", None, "Of a recipe: the run to evaluate.")
OUTPUT = flags.DEFINE_string("output", "evaluation.json", "File in the workdir.")
EXPORT = flags.DEFINE_string("export", None, "Folder for pictures of the predictions.")
UNLABELLED = flags.DEFINE_boolean("unlabelled", False, "Only --export, count nothing.")
WEIGHTS = flags.DEFINE_string(
    "weights", None, "Evaluate this file (.pth, .npz, .safetensors) instead of a run."
)


def main(_) -> None:
    """Evaluate --workdir or --weights with --config and print the table."""
    config = CONFIG.value
    if UNLABELLED.value and not EXPORT.value:
        raise UserError("--unlabelled has nothing to do without --export FOLDER")
    results, note = evaluate_file(config) if WEIGHTS.value else evaluate_run(config)
    if results and jax.process_index() == 0:
        print(recipe.results_table(results))
        if note:
            print(note)


def evaluate_file(config: ConfigDict) -> tuple[dict, str]:
    """{file name: result} of the network in --weights, and nothing to add.

    Raises:
      UserError: the file does not hold the whole network of config.model.
    """
    if WORKDIR.value or (RUN.value and not config.recipe):
        raise UserError("--weights takes no --workdir, and --run only of a recipe")
    if RUN.value:
        config = config_lib.run_config(config, RUN.value)
    check_stage(config)
    path = pathlib.Path(WEIGHTS.value)
    model = startup.build_model(config)
    variables = pretrained.load_network(str(path), model)
    source = startup.open_dataset(config, "eval", labelled=not UNLABELLED.value)
    logging.info("evaluate %s on %d images", path, len(source))
    evaluator = evaluation.Evaluator(config, model, source)
    place = pathlib.Path(OUTPUT.value).parent
    result = evaluate(evaluator, config, place, variables, 0, str(path), EXPORT.value)
    if result is None:
        return {}, ""
    if flags.FLAGS["output"].present:
        write(pathlib.Path(OUTPUT.value), result)
    return {path.name: result}, ""


def check_stage(config: ConfigDict) -> None:
    """Raise UserError for values that cannot work, or a run without classes."""
    validation.validate(config)
    if config.stage not in validation.SEGMENTATION:
        raise UserError(
            f"stage {config.stage} has no classes to evaluate: look at the samples.png "
            "of its workdir, and train on what python -m tufl_jax.translate makes of it"
        )


def evaluate_run(config: ConfigDict) -> tuple[dict, str]:
    """{name: result} of the run's last step and, if it is kept, its best; a remark."""
    workdir = pathlib.Path(WORKDIR.value or f"runs/{cli.config_name()}")
    if config.recipe:
        if RUN.value not in config.recipe:
            names = ", ".join(config.recipe)
            raise UserError(f"this config is a recipe: say --run, one of {names}")
        config = recipe.resolve(config, RUN.value, workdir)
        workdir = workdir / RUN.value
    check_stage(config)
    output = None if UNLABELLED.value else OUTPUT.value
    as_trained = workdirs.check_evaluation(config, workdir, output)
    source = startup.open_dataset(config, "eval", labelled=not UNLABELLED.value)
    model = startup.build_model(config)
    evaluator = evaluation.Evaluator(config, model, source)
    step, variables = startup.load_run(config, model, "workdir", workdir)
    logging.info("evaluate step %d of %s on %d images", step, workdir, len(source))

    def judge(variables, step, folder=None):
        name = f"checkpoints/{step}"
        return evaluate(evaluator, config, workdir, variables, step, name, folder)

    result = judge(variables, step, EXPORT.value)
    if result is None:
        return {}, ""
    results, note = {workdir.name: result}, ""
    if as_trained:
        best = evaluation.best_step(workdir / "metrics.jsonl", result)
        result["best"] = best
        kept = (workdir / "checkpoints" / str(best["step"])).exists()
        note = (
            f"best evaluated step of the run: {best['step']}, miou "
            f"{100 * best['miou']:.1f}{'' if kept else '; its checkpoint is not kept'}"
        )
        if best["step"] != step and kept:
            _, variables = startup.load_run(
                config, model, "workdir", workdir, only=best["step"]
            )
            results[f"best ({best['step']})"] = judge(variables, best["step"])
            name = OUTPUT.value.removesuffix(".json") + "_best.json"
            write(workdir / name, results[f"best ({best['step']})"])
    write(workdir / OUTPUT.value, result)
    return results, note


def evaluate(
    evaluator: evaluation.Evaluator,
    config: ConfigDict,
    place: pathlib.Path,
    variables: dict,
    step: int,
    checkpoint: str,
    folder: str | None = None,
) -> dict | None:
    """One network's content of evaluation.json, None without labels.

    Its journal lies beside what it writes (in `place`, or in the `folder` of exported
    pictures), so that deleting the one deletes the other.
    """
    place = pathlib.Path(folder) if folder else place
    journal = Journal(
        place / f".{OUTPUT.value}.journal{jax.process_index()}",
        f"{UNLABELLED.value} {evaluator.fingerprint(variables)}",
    )
    keep = export.Exporter(folder, labels.of_config(config)) if folder else None
    result = None
    try:
        if UNLABELLED.value:
            evaluator.export(variables, journal=journal, keep=keep)
        else:
            result = evaluator(variables, journal=journal, keep=keep).as_json(
                step=step, checkpoint=checkpoint
            )
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"out of device memory ({str(error).splitlines()[0][:160]}): lower "
            "config.eval.batch_size, or set config.eval.window and config.eval.tile"
        ) from error
    finally:
        journal.close()
    journal.remove()
    if folder:
        logging.info("predictions: %s/labelIds and %s/colour", folder, folder)
    return result


def write(path: pathlib.Path, result: dict) -> None:
    """Write a result, from the first process only."""
    if jax.process_index() == 0:
        evaluation.write_json(path, result)


if __name__ == "__main__":
    app.run(cli.guarded(main), flags_parser=cli.parse_flags)
