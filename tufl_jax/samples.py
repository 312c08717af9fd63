"""The samples by which a style translation is judged, in place of an evaluation."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from tufl_jax import pictures, startup
from tufl_jax.steps import cyclegan

KINDS = ("translated", "cycle", "identity")  # of a sample


@dataclasses.dataclass(frozen=True)
class SampleErrors:
    """Mean absolute errors in grey levels of 0..255, of samples of both domains.

    Attributes:
      values: {'cycle_source', 'cycle_target', 'identity_source', 'identity_target'}.
    """

    values: dict[str, float]

    def as_json(self, *, step: int, checkpoint: str) -> dict:
        """The content of evaluation.json."""
        return {"step": step, "checkpoint": checkpoint, **self.scalars()}

    def headline(self) -> str:
        """The result in a few words."""
        return "error " + ", ".join(f"{k} {v:.1f}" for k, v in self.values.items())

    def scalars(self) -> dict[str, float]:
        """What the logs show."""
        return dict(self.values)

    def best(self, log: pathlib.Path, step: int) -> dict:
        """Nothing: small errors are no sign of a good translation."""
        del log, step
        return {}


class Samples:
    """Translates fixed crops of both domains there and back, for people to look at.

    Calling it writes samples.png into the workdir: the images, translated, translated
    back, and what their own domain's generator makes of them. The errors of the last
    two are no measure of quality, but a training that fails shows in them.

    Args:
      config: the run's config.
      model: the CycleGAN.
      data: {'source': data source, 'target': data source}.
      workdir: of the run.
    """

    def __init__(self, config: ConfigDict, model, data: dict, workdir: pathlib.Path):
        self._path = workdir / "samples.png"
        self._images = {}
        for domain, source in data.items():
            augment = startup.augmentation(config.data[domain])
            augment = dataclasses.replace(
                augment, scales=(1.0,), scale_width=None, hflip=0.0
            )
            step = max(len(source) // config.style.samples, 1)
            chosen = range(step // 2, len(source), step)[: config.style.samples]
            views = [
                augment({"image": source[i]["image"]}, np.random.default_rng(i))
                for i in chosen
            ]
            self._images[domain] = np.stack([view["image"] for view in views])
        self._there_and_back = jax.jit(functools.partial(_there_and_back, model))

    def __call__(self, variables: dict) -> SampleErrors:
        """Errors of {'params': ...}; see the class."""
        params = jax.device_get(variables["params"])
        made = jax.device_get(self._there_and_back(params, self._images))
        errors, rows, titles = {}, [], []
        for kind in ("cycle", "identity"):
            for domain, images in self._images.items():
                error = np.abs(made[domain][kind] - images.astype(np.float32))
                errors[f"{kind}_{domain}"] = float(error.mean())
        for domain, images in self._images.items():
            for i, image in enumerate(images):
                new = (np.rint(made[domain][kind][i]) for kind in KINDS)
                rows.append([image, *(x.astype(np.uint8) for x in new)])
                titles.append(domain)
        if jax.process_index() == 0:
            columns = ["image", *KINDS]
            sheet = pictures.contact_sheet(rows, columns, row_titles=titles)
            pictures.save_png(sheet, self._path)
        return SampleErrors(errors)


def _there_and_back(model, params, images: dict) -> dict:
    """{domain: {kind: f32[N, H, W, 3] in 0..255}} of {domain: u8[N, H, W, 3]}."""

    def to(domain, images):
        return model.apply({"params": params}, images, domain, method="translate")

    result = {}
    for domain, other in cyclegan.OTHER.items():
        real = cyclegan.scaled(images[domain])
        new = to(other, real)
        made = (new, to(domain, new), to(domain, real))
        result[domain] = dict(zip(KINDS, map(cyclegan.pixels, made), strict=True))
    return result
