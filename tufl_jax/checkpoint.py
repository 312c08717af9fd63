"""Checkpoints that are verified when they are read.

Orbax writes atomically but loads flipped bytes without a word, so every leaf's
crc32 is saved beside the state and compared on restore; the newest step that
verifies wins, and damaged ones are set aside with a warning.
"""

import os
import pathlib
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from tufl_jax.errors import UserError

FOLDER = "checkpoints"
DAMAGED = "damaged_checkpoints"


def digest(tree) -> dict[str, list]:
    """{path: [dtype, shape, crc32]} of every leaf; attributes and keys look alike."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    host = jax.device_get([leaf for _, leaf in leaves])
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): [
            str(array.dtype),
            list(array.shape),
            zlib.crc32(np.ascontiguousarray(array).tobytes()),
        ]
        for (path, _), array in zip(leaves, map(np.asarray, host), strict=True)
    }


class Checkpoints:
    """The checkpoints of one workdir; `close` when done.

    `read_only` is for looking into the workdir of another run, which may be running:
    nothing in it is created, moved or removed.
    """

    def __init__(
        self, workdir: str | os.PathLike, *, keep: int = 2, read_only: bool = False
    ):
        self._read_only = read_only
        self._workdir = pathlib.Path(workdir).absolute()
        self._keep = keep
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self._workdir / FOLDER,
            options=ocp.CheckpointManagerOptions(read_only=True)
            if self._read_only
            else ocp.CheckpointManagerOptions(
                max_to_keep=self._keep, cleanup_tmp_directories=True
            ),
            item_names=("state", "digest"),
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, unverified; None if there is none."""
        return self._manager.latest_step()

    def save(self, state) -> None:
        """Save in the background under the state's step.

        Raises:
          UserError: this or the previous save failed, for example on a full disk;
            earlier checkpoints stay as they are.
        """
        step = int(jax.device_get(state.step))
        if step in self._manager.all_steps():
            return
        try:
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    digest=ocp.args.JsonSave(digest(state)),
                ),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise self._save_failed(error) from error
        if not saved:
            raise UserError(f"checkpoint {step} was refused by {self._workdir}")

    def wait(self) -> None:
        """Block until the last save is on disk; raises UserError if it failed."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._save_failed(error) from error

    def _save_failed(self, error: Exception) -> UserError:
        reason = next((x for x in str(error).splitlines() if x.strip()), repr(error))
        return UserError(
            f"a checkpoint could not be saved in {self._workdir / FOLDER} "
            f"({reason[:160]}); the earlier ones are untouched: free some space and "
            "run the same command again"
        )

    def restore(self, like):
        """The newest state that loads and verifies, or None if there is none.

        Args:
          like: a state of arrays with shardings, which the result gets.

        Raises:
          UserError: there are checkpoints, but none is usable.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        found = self._newest(ocp.args.StandardRestore(target))
        return None if found is None else found[1]

    def restore_variables(self, only: int | None = None) -> tuple[int, dict]:
        """Step and {'params', 'batch_stats', 'thresholds'} of the newest good state.

        Args:
          only: the one step that will do.

        Raises:
          UserError: there is no usable checkpoint.
        """
        one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        restore = ocp.args.StandardRestore(fallback_sharding=one_device)
        found = self._newest(restore, only)
        if found is None:
            raise UserError(f"no checkpoint in {self._workdir / FOLDER}: train first")
        step, state = found
        names = ("params", "batch_stats", "thresholds")
        return step, jax.device_get({name: state[name] for name in names})

    def _newest(self, restore_args, only: int | None = None):
        """(step, state) of the newest step that verifies; others are set aside."""
        reasons = {}
        steps = [s for s in self._manager.all_steps() if only in (None, s)]
        for step in sorted(steps, reverse=True):
            try:
                args = ocp.args.Composite(
                    state=restore_args, digest=ocp.args.JsonRestore()
                )
                restored = self._manager.restore(step, args=args)
                _verify(restored.state, restored.digest)
            except (MemoryError, PermissionError):
                raise  # says nothing about the checkpoint
            except Exception as error:  # noqa: BLE001 - damage shows as anything
                if "RESOURCE_EXHAUSTED" in str(error):
                    raise
                lines = [x for x in str(error).splitlines() if x.strip()]
                reasons[step] = (lines or [repr(error)])[0][:160]
                continue
            self._set_aside(reasons, good=step)
            return step, restored.state
        if reasons:
            listed = "; ".join(f"step {s}: {r}" for s, r in reasons.items())
            raise UserError(
                f"no usable checkpoint in {self._workdir / FOLDER} ({listed}); "
                "choose another --workdir, or delete this folder to start over"
            )
        return None

    def _set_aside(self, reasons: dict[int, str], *, good: int) -> None:
        """Move damaged steps away, so that the run can save them anew."""
        if not reasons or self._read_only:
            return
        self._manager.close()
        folder = self._workdir / DAMAGED
        folder.mkdir(exist_ok=True)
        for step, reason in reasons.items():
            place = folder / str(step)
            count = 1
            while place.exists():
                place = folder / f"{step}.{count}"
                count += 1
            (self._workdir / FOLDER / str(step)).rename(place)
            logging.warning(
                "checkpoint of step %d is damaged (%s): moved to %s, "
                "falling back to step %d",
                step,
                reason,
                place,
                good,
            )
        self._manager = self._open()

    def close(self) -> None:
        """Wait for the last save and release the threads."""
        self._manager.wait_until_finished()
        self._manager.close()


def _verify(state, saved: dict[str, list]) -> None:
    """Raise ValueError when a leaf's bytes are not those that were saved."""
    now = digest(state)
    bad = [key for key, value in saved.items() if now.get(key) != value]
    if bad:
        raise ValueError(f"{len(bad)} arrays differ from their digest, first {bad[0]}")
