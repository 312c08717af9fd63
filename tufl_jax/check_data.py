"""Look at every file of a data set and say what is wrong with it.

    python -m tufl_jax.check_data --config configs/camvid.py
    python -m tufl_jax.check_data --config configs/camvid.py --domain eval
    python -m tufl_jax.check_data --dataset gta5 --root FOLDER
    python -m tufl_jax.check_data --dataset cityscapes --root FOLDER --split train,val

Prints a table and everything found, and writes `report.json` and contact sheets with
the labels laid over the pictures to --output. Damaged files, labels that do not fit,
wrong ids and missing pairs make a data set unusable: exit code 1. What a training
survives (duplicates, an incomplete split, all-zero labels) is said and leaves it at 0.
Files that are known to be bad are left out by name, as a training does, and said.
"""

import functools
import itertools
import pathlib
import re
import sys

from absl import app, flags
from ml_collections import ConfigDict

from tufl_jax import cli, evaluation, labels, pictures, validation
from tufl_jax import config as config_lib
from tufl_jax.data import files, inspection, layouts
from tufl_jax.data.inspection import Problem, Report
from tufl_jax.errors import UserError

CONFIG = cli.define_config()
DOMAIN = flags.DEFINE_enum(
    "domain", "all", ["source", "target", "eval", "all"], "Of --config."
)
DATASET = flags.DEFINE_string(
    "dataset", None, f"One of {', '.join(sorted(set(layouts.LAYOUTS) - {'folder'}))}."
)
ROOT = flags.DEFINE_string("root", None, "Folder with the archives or their content.")
SPLIT = flags.DEFINE_list("split", None, "Splits; default: all there are.")
CITY = flags.DEFINE_string("city", "", "Of crosscity.")
ANNOTATION = flags.DEFINE_string("annotation", "gtFine", "Of cityscapes.")
OUTPUT = flags.DEFINE_string("output", "check_data", "Folder for report and pictures.")

# The fields that decide which files are read, and how.
_FILES = (
    *("name", "format", "root", "split", "city", "annotation", "images", "labels"),
    *("ids", "other_ids", "start", "stop", "translated"),
)
_NUM_CLASSES = {"synthia": 16, "crosscity": 13}  # that a data set can have
_SHOWN = 10  # problems of one kind; the report has all
_SHEET_ROWS, _SHEET_WIDTH = 6, 480


def main(_) -> None:
    """Check what the flags say; exit code 1 if it cannot be used."""
    if (CONFIG.value is None) == (DATASET.value is None):
        raise UserError("give either --dataset and --root, or --config")
    specs = of_config(CONFIG.value) if DATASET.value is None else of_flags()
    output = pathlib.Path(OUTPUT.value)
    reports = []
    for title, spec, classes, labelled in specs:
        report = inspection.inspect(spec, classes=classes, labelled=labelled)
        report.title = title or report.title
        print(text(report), end="\n\n")
        sheet = contact_sheet(report)
        if sheet is not None:
            name = "_".join(re.findall(r"[\w.]+", report.title))
            pictures.save_png(sheet, output / f"{len(reports)}_{name}.png")
        reports.append(report)
    shared = between(reports)
    print(*shared, sep="\n", end="\n\n" if shared else "")
    usable = all(report.usable for report in reports)
    output.mkdir(parents=True, exist_ok=True)
    content = {
        "usable": usable,
        "duplicates_between": shared,
        "sets": [as_json(report) for report in reports],
    }
    evaluation.write_json(output / "report.json", content)
    print(f"{'usable' if usable else 'NOT usable'}; report and pictures: {output}")
    sys.exit(0 if usable else 1)


def of_config(config: ConfigDict) -> list[tuple]:
    """(title, spec, classes, labelled) of the folders a config reads, each once."""
    runs = [config_lib.run_config(config, name) for name in config.recipe] or [config]
    wanted = ("source", "target", "eval") if DOMAIN.value == "all" else (DOMAIN.value,)
    found: dict[str, list] = {}
    for run, domain in itertools.product(runs, wanted):
        spec = ConfigDict(run.data[domain].to_dict())
        if spec.name not in layouts.LAYOUTS:
            continue
        segments = run.stage in validation.SEGMENTATION
        if domain not in (*config_lib.domains(run), *["eval"] * segments):
            continue
        for key in ("root", "translated"):
            spec[key] = config_lib.expand(spec[key], key=f"data.{domain}.{key}")
        key = str([spec[key] for key in _FILES])
        domains, _, _, needed = found.get(key, ([], None, None, False))
        if domain not in domains:
            domains = [*domains, domain]
        classes = labels.of_config(run)
        needed |= segments and domain != "target"
        found[key] = [domains, spec, classes, needed]
    if not found:
        raise UserError(
            "this config reads no folders here: the built-in streets need no check"
        )
    return [
        (_title(domains, spec), spec, classes, labelled)
        for domains, spec, classes, labelled in found.values()
    ]


def _title(domains: list[str], spec: ConfigDict) -> str:
    words = [spec.name, spec.city, spec.split, "of", pathlib.Path(spec.root).name]
    if spec.translated:
        words.append(f"in the style of {spec.translated}")
    if (spec.start, spec.stop) != (0.0, 1.0):
        words.append(f"from {spec.start} to {spec.stop}")
    return f"{', '.join(domains)}: {' '.join(filter(None, words))}"


def of_flags() -> list[tuple]:
    """The same for the splits of --dataset."""
    if DATASET.value not in layouts.LAYOUTS or DATASET.value == "folder":
        names = ", ".join(sorted(set(layouts.LAYOUTS) - {"folder"}))
        raise UserError(
            f"--dataset {DATASET.value}: choose one of {names}, or give --config"
        )
    if not ROOT.value:
        raise UserError("give --root, the folder of the archives or their content")
    counts = layouts.LAYOUTS[DATASET.value].counts
    classes = labels.cityscapes(_NUM_CLASSES.get(DATASET.value, 19))
    splits = SPLIT.value or (("all",) if "all" in counts else tuple(counts))
    specs = []
    for split in splits:
        spec = ConfigDict(config_lib.base().data.eval.to_dict())
        spec.update(name=DATASET.value, root=ROOT.value, split=split)
        spec.update(city=CITY.value, annotation=ANNOTATION.value)
        specs.append(spec)
    tree = files.Tree(ROOT.value)
    there = [spec for spec in specs if _is_there(tree, layouts.of_files(spec))]
    # Without any, looking at the first says what is there instead.
    chosen = specs if SPLIT.value else there or specs[:1]
    return [("", spec, classes, None) for spec in chosen]


def _is_there(tree: files.Tree, layout: layouts.Layout) -> bool:
    return tree.exists(layout.images.partition("{name}")[0].rstrip("/"))


def between(reports: list[Report]) -> list[str]:
    """One line for each two sets that share pictures."""
    lines = []
    for a, b in itertools.combinations(reports, 2):
        if shared := sorted(a.hashes.keys() & b.hashes.keys(), key=a.hashes.get):
            some = ", ".join(f"{a.hashes[x]} = {b.hashes[x]}" for x in shared[:3])
            lines.append(
                f"duplicates: {len(shared)} pictures of {a.title} are in {b.title}, "
                f"e.g. {some}"
            )
    return lines


def text(report: Report) -> str:
    """What is printed of a set."""
    expected = f" of {report.expected}" if report.expected is not None else ""
    sizes = ", ".join(
        f"{count} of {height} x {width}"
        for (height, width), count in report.sizes.most_common(5)
    )
    more = len(report.sizes) - 5
    lines = [
        f"== {report.title} ({'labelled' if report.labelled else 'images only'})",
        f"images: {report.items}{expected}",
        f"sizes (height x width): {sizes}{f' and {more} others' if more > 0 else ''}",
        *(f"skipped: {name}: {why}" for name, why in sorted(report.skipped.items())),
    ]
    if report.labelled:
        lines += ["", *_class_table(report), "", _ids(report)]
    for fatal, word in ((True, "error"), (False, "warning")):
        lines += _problems([p for p in report.problems if p.fatal == fatal], word)
    return "\n".join(lines)


def _class_table(report: Report) -> list[str]:
    pixels = class_pixels(report)
    total = max(sum(pixels.values()), 1)
    width = max(map(len, pixels))
    lines = [f"{'class':{width}}  % of labelled pixels  images"]
    for i, (name, count) in enumerate(pixels.items()):
        images = report.class_images[i]
        lines.append(f"{name:{width}}  {100 * count / total:20.3f}  {images:6d}")
    everything = int(report.pixels.sum())
    share = 100 * (everything - sum(pixels.values())) / max(everything, 1)
    return [*lines, f"{'(ignored)':{width}}  {share:20.3f} % of all pixels"]


def class_pixels(report: Report) -> dict[str, int]:
    """Pixels of each class of the training."""
    return {
        name: int(report.pixels[report.to_class == i].sum())
        for i, name in enumerate(report.classes.names)
    }


def _ids(report: Report) -> str:
    found = [
        f"{raw} {report.ids.get(raw) or '-'} ({report.images[raw]})"
        for raw in report.pixels.nonzero()[0].tolist()
    ]
    return f"raw ids (labels that hold them): {', '.join(found)}"


def _problems(problems: list[Problem], word: str) -> list[str]:
    lines = []
    for kind in dict.fromkeys(problem.kind for problem in problems):
        same = [problem.message for problem in problems if problem.kind == kind]
        lines += [f"{word} ({kind}): {message}" for message in same[:_SHOWN]]
        if len(same) > _SHOWN:
            lines.append(f"{word} ({kind}): ... and {len(same) - _SHOWN} more")
    return lines


def as_json(report: Report) -> dict:
    """All that was found."""
    pixels = class_pixels(report)
    found = report.pixels.nonzero()[0].tolist()
    return {
        "set": report.title,
        "usable": report.usable,
        "images": report.items,
        "expected": report.expected,
        "labelled": report.labelled,
        "skipped": report.skipped,
        "sizes": {f"{h} x {w}": n for (h, w), n in sorted(report.sizes.items())},
        "ids": {
            str(raw): {
                "name": report.ids.get(raw),
                "pixels": int(report.pixels[raw]),
                "images": int(report.images[raw]),
            }
            for raw in found
        },
        "classes": {
            name: {"pixels": count, "images": int(report.class_images[i])}
            for i, (name, count) in enumerate(pixels.items())
        },
        "problems": [
            {"kind": p.kind, "fatal": p.fatal, "message": p.message}
            for p in report.problems
        ],
    }


def contact_sheet(report: Report):
    """Pictures from all over the set with their labels, None if all are damaged."""
    step = max(len(report.good) // _SHEET_ROWS, 1)
    rows, names, shown = [], [], []
    for index in report.good[step // 2 :: step][:_SHEET_ROWS]:
        image = report.source.image(index)
        names.append(report.source.name(index).rpartition("/")[2])
        rows.append([image])
        if report.labelled:
            label = report.source.label(index)
            shown.append(label)
            laid_over = pictures.overlay(image, label, report.classes.palette)
            rows[-1] += [laid_over, report.classes.colorize(label)]
    if not rows:
        return None
    return pictures.contact_sheet(
        rows,
        ["image", "labels over it", "labels"][: len(rows[0])],
        row_titles=names,
        legend=pictures.classes_present(
            shown, report.classes.names, report.classes.palette
        ),
        cell_width=_SHEET_WIDTH,
    )


if __name__ == "__main__":
    parse = functools.partial(cli.parse_flags, config_required=False)
    app.run(cli.guarded(main), flags_parser=parse)
