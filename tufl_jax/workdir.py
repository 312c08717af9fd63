"""The folder of a run: whose it is, whether it is finished, and its lock."""

import contextlib
import fcntl
import json
import pathlib

import jax
from ml_collections import ConfigDict

from tufl_jax import config as config_lib
from tufl_jax import evaluation
from tufl_jax.checkpoint import FOLDER
from tufl_jax.errors import UserError


def check_workdir(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Raise UserError if the workdir was begun with other settings."""
    path = workdir / "config.json"
    if not path.exists() or not has_checkpoint(workdir):
        return  # a start that failed before its first checkpoint binds nobody
    try:
        saved = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not readable ({error}): delete the workdir"
        ) from None
    changed = config_lib.differences(saved, config)
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{workdir} belongs to another config ({'; '.join(changed[:3])}{more}): "
            "choose another --workdir or delete this one"
        )


def check_evaluation(
    config: ConfigDict, workdir: pathlib.Path, output: str | None
) -> bool:
    """Refuse another network, and a result that would replace the training's own.

    Args:
      output: name of the result's file in the workdir, None if there will be none.

    Returns:
      Whether this is the evaluation that the training makes itself.

    Raises:
      UserError: as it says.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"no config.json in {workdir}: it is not the folder of a run")
    changed = config_lib.differences(json.loads(path.read_text()), config)
    network = [x for x in changed if x.startswith(("model.", "num_classes", "classes"))]
    if network:
        raise UserError(f"{workdir} holds another network: {'; '.join(network)}")
    other = [x for x in changed if x.startswith(("eval.", "data.eval."))]
    if other and output == "evaluation.json":
        raise UserError(
            f"not as the run was evaluated ({'; '.join(other)}): give the result a "
            "name of its own with --output"
        )
    return not other


def check_style(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Raise UserError if the workdir holds another style translation."""
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"no config.json in {workdir}: train that run first")
    changed = config_lib.differences(json.loads(path.read_text()), config)
    where = ("stage", "style.width", "style.blocks", "data.source.resize")
    if changed := [x for x in changed if x.startswith(where)]:
        raise UserError(f"{workdir} holds another translation: {'; '.join(changed)}")


def has_checkpoint(workdir: pathlib.Path) -> bool:
    """Whether the workdir holds a complete checkpoint."""
    return any(p.name.isdigit() for p in (workdir / FOLDER).glob("*"))


@contextlib.contextmanager
def claimed(config: ConfigDict, workdir: pathlib.Path):
    """Create the workdir, save the config and keep other trainers out.

    The lock is the operating system's and goes with the process, however it ends. Of
    several processes of one training, the first one takes it.

    Raises:
      UserError: another process is training there.
    """
    if jax.process_index() > 0:
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another process is training in {workdir}") from None
        if not has_checkpoint(workdir):
            evaluation.write_json(workdir / "config.json", config_lib.as_json(config))
        yield


def finished(config: ConfigDict, workdir: pathlib.Path) -> dict | None:
    """evaluation.json of a run that reached its last step, else None."""
    path = workdir / "evaluation.json"
    last = workdir / "checkpoints" / str(config.train.num_steps)
    if not path.exists() or not last.exists():
        return None
    try:
        result = json.loads(path.read_text())
    except json.JSONDecodeError:
        return None  # damaged: the last checkpoint is evaluated again
    return result if result.get("step") == config.train.num_steps else None
