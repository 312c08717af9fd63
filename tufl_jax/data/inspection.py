"""One pass over a data set that finds everything wrong with it, without stopping."""

import collections
import dataclasses
import functools

import numpy as np

from tufl_jax import labels
from tufl_jax.data import layouts, reading
from tufl_jax.data.faults import Items, Problem, look_at
from tufl_jax.data.folders import FolderFiles
from tufl_jax.data.layouts import Layout
from tufl_jax.data.prepared import PreparedFiles
from tufl_jax.data.progress import Progress, num_cores
from tufl_jax.data.translated import TranslatedFiles
from tufl_jax.errors import UserError

_OUTLIER = 8  # times the usual number of pixels
_FAULTY = 0.1  # more all-zero labels than this share are no accident

# Images of the 2975 with each class, as counted by others (the 13 Cross-City classes).
_CITYSCAPES_TRAIN = dict(
    zip(
        labels.class_names(13),
        (2934, 2811, 2934, 1658, 2808, 2891, 2686, 2343, 1023, 2832, 274, 513, 1646),
        strict=True,
    )
)


@dataclasses.dataclass
class Report:
    """What was found in one split of a data set.

    Attributes:
      title: data set and split.
      items: images that were looked at.
      expected: images that the complete split has; None if that is not known.
      labelled: whether labels were looked at.
      skipped: {name: why} of files that are known to be bad and left out.
      sizes: images of each (height, width).
      pixels, images: i64[256] by raw id: pixels, and labels that hold it.
      class_images: i64[256] by class index.
      classes: of the training.
      to_class: u8[256], the class of each raw id.
      ids: {raw id: name} of the data set.
      problems: in the order of the items.
      hashes: {digest of the pixels: name}.
      good: indices of items without a fatal problem.
      source: gives `name(i)`, `image(i)` and `label(i)` of an item that is good.
    """

    title: str
    items: int
    expected: int | None
    labelled: bool
    skipped: dict[str, str]
    sizes: collections.Counter
    pixels: np.ndarray
    images: np.ndarray
    class_images: np.ndarray
    classes: labels.Classes
    to_class: np.ndarray
    ids: dict[int, str]
    problems: list[Problem]
    hashes: dict[bytes, str]
    good: list[int]
    source: "Items"

    @property
    def usable(self) -> bool:
        """Whether a training can read every item."""
        return self.items > 0 and not any(p.fatal for p in self.problems)


def inspect(
    spec, *, classes: labels.Classes, labelled: bool | None, num_threads: int = 0
) -> Report:
    """Look at every file of a split.

    Memory is bounded by a few decoded items a thread, whatever the size of the set.

    Args:
      spec: the fields of config.data.*, with root expanded.
      classes: of the training.
      labelled: whether labels are needed; None: where there are label files.
      num_threads: readers; 0: all cores.

    Raises:
      UserError: nothing can be looked at: no such folder, no image in it, or a setting
        that does not fit.
    """
    layout = layouts.of_spec(spec, classes)
    problems: list[Problem] = []
    files = _open(spec, layout, problems)
    if labelled is None:
        labelled = bool(layout.labels) and files.has_labels
    if spec.translated:
        files = TranslatedFiles(files, spec.translated)
    items = Items(files, reading.READ_LABEL[layout.decode], classes.lut(layout.ids))
    count = len(files.names)
    indices = range(round(spec.start * count), round(spec.stop * count))
    whole = len(indices) == count
    report = Report(
        title=" ".join(filter(None, (spec.name, spec.city, spec.split))),
        items=len(indices),
        expected=_expected(layout, spec.split, files) if whole else None,
        labelled=labelled,
        skipped=dict(files.skipped),
        sizes=collections.Counter(),
        pixels=np.zeros(256, np.int64),
        images=np.zeros(256, np.int64),
        class_images=np.zeros(256, np.int64),
        classes=classes,
        to_class=items.to_class,
        ids=dict(layout.ids),
        problems=problems,
        hashes={},
        good=[],
        source=items,
    )
    _look_at_all(report, indices, num_threads or num_cores())
    _judge_whole(report, spec)
    return report


def _open(spec, layout: Layout, problems: list[Problem]):
    if spec.format == "prepared":
        return PreparedFiles(spec.root, spec, labelled=False)

    def report(error: UserError) -> None:
        problems.append(Problem("files", str(error)))

    files = FolderFiles(
        spec.root, layout, split=spec.split, labelled=False, report=report
    )
    for name in files.without_image:
        path = layout.labels.replace("{name}", name)
        text = f"{path}: a label without an image"
        problems.append(Problem("no image", text, fatal=False))
    return files


def _expected(layout: Layout, split: str, files) -> int | None:
    """Items of the complete split, without those skipped for their odd sizes."""
    if split not in layout.counts:
        return None
    return layout.counts[split] - len(layout.odd & files.skipped.keys())


def _look_at_all(report: Report, indices: range, num_threads: int) -> None:
    look = functools.partial(look_at, report.source, report.labelled)
    found = reading.ordered_map(look, indices, num_threads=num_threads)
    progress = Progress(f"checking {report.title}", len(indices))
    sizes = {}
    known = {problem.message for problem in report.problems}
    for index, item in zip(indices, found, strict=True):
        name = report.source.name(index)
        report.problems += [p for p in item.problems if p.message not in known]
        if not any(p.fatal for p in item.problems):
            report.good.append(index)
        if item.size:
            sizes[name] = item.size
        if item.pixels is not None:
            report.pixels += item.pixels
            report.images += item.pixels > 0
            report.class_images += item.class_images
        if item.digest:
            twin = report.hashes.setdefault(item.digest, name)
            if twin != name:
                text = f"{name} and {twin} are the same picture"
                report.problems.append(Problem("duplicate", text, fatal=False))
        progress.add()
    report.sizes.update(sizes.values())
    usual = np.median([h * w for h, w in sizes.values()]) if sizes else 0
    for name, (height, width) in sizes.items():
        if height * width > _OUTLIER * usual:
            text = f"{name}: {width}x{height} pixels, far more than the others"
            report.problems.append(Problem("size", text, fatal=False))


def _judge_whole(report: Report, spec) -> None:
    """Faults that only all files together show."""
    zero = sum(p.kind == "all zero" for p in report.problems)
    if zero > _FAULTY * max(report.items, 1):
        text = f"{zero} of {report.items} labels have no id but 0: decoded wrongly"
        report.problems.append(Problem("all zero", text))
    if report.expected is not None and report.items != report.expected:
        text = f"{report.items} images, the complete split has {report.expected}"
        report.problems.append(Problem("count", text, fatal=False))
    if not report.labelled:
        return
    absent = [
        name
        for i, name in enumerate(report.classes.names)
        if not report.class_images[i]
    ]
    if absent:
        text = f"no pixel of {', '.join(absent)} in any label"
        report.problems.append(Problem("absent class", text, fatal=False))
    whole = report.items == 2975 and spec.annotation == "gtFine"
    if (spec.name, spec.split) == ("cityscapes", "train") and whole:
        _check_cityscapes(report)


def _check_cityscapes(report: Report) -> None:
    for i, name in enumerate(report.classes.names):
        known = _CITYSCAPES_TRAIN.get(name)
        found = int(report.class_images[i])
        if known is not None and found != known:
            text = f"{name} is in {found} of the 2975 labels, others count {known}"
            report.problems.append(Problem("self-check", text))
