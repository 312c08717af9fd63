"""Host transforms and the batches of a training."""

import contextlib
import dataclasses
import io
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tests import replicas
from tufl_jax import config, labels
from tufl_jax.data import pipeline, reading, sources, transforms
from tufl_jax.data.longtail import Donors
from tufl_jax.data.pipeline import Domain
from tufl_jax.data.transforms import Augment
from tufl_jax.errors import UserError

AUGMENT = Augment(crop=(6, 8), scales=(0.75, 1.0, 1.5))


@dataclasses.dataclass
class Coded:
    """Pictures whose pixels tell (item, row, column); labels tell the column."""

    length: int = 7
    size: tuple[int, int] = (10, 14)
    broken: int = -1

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index == self.broken:
            raise UserError("picture.png: cannot be read")
        rows, columns = np.mgrid[: self.size[0], : self.size[1]].astype(np.uint8)
        item = np.full_like(rows, index)
        image = np.stack([item, 10 * rows, 10 * columns], -1)
        return {"image": image, "label": columns, "name": str(index)}


def take(count, *args, **options):
    batches = pipeline.train_batches(*args, **options)
    out = list(itertools.islice(batches, count))
    batches.close()
    return out


def assert_same(some, others):
    assert len(some) == len(others)
    for a, b in zip(some, others, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def all_streams():
    donors = Donors(
        source=Coded(),
        database=[np.array([3]), np.array([], np.int64), np.array([0, 5])],
        augment=AUGMENT,
        per_step=3,
    )
    return Domain(Coded(), AUGMENT, 4), Domain(Coded(5), AUGMENT, 2), donors


def test_resizing_equals_whole_picture_then_crop():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (13, 17, 3), np.uint8)
    label = image[..., 0]
    for size in ((13, 17), (20, 30), (9, 12)):
        full = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
        ids = Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST)
        for window in ((0, 0), (2, 3), (size[0] - 6, size[1] - 8)):
            part = (
                slice(window[0], window[0] + 6),
                slice(window[1], window[1] + 8),
            )
            np.testing.assert_allclose(
                transforms.bilinear(image, size, window, (6, 8)).astype(int),
                np.asarray(full)[part].astype(int),
                atol=1,
            )
            np.testing.assert_array_equal(
                transforms.nearest(label, size, window, (6, 8)), np.asarray(ids)[part]
            )


def test_label_stays_on_its_image():
    # The image is smooth in the column that its label tells, so after any scale, crop
    # and flip they differ by less than the two pixels that bilinear mixes.
    seen_flip, seen_scale = set(), set()
    for seed in range(40):
        view = AUGMENT(Coded(size=(16, 20))[1], np.random.default_rng(seed))
        assert view["image"].shape == (6, 8, 3) and view["label"].shape == (6, 8)
        assert view["image"].flags.c_contiguous and view["label"].flags.c_contiguous
        np.testing.assert_allclose(
            view["image"][..., 2] / 10.0, view["label"].astype(float), atol=1.0
        )
        step = np.diff(view["image"][3, :, 2].astype(float)).mean()
        seen_flip.add(step < 0)
        seen_scale.add(min(AUGMENT.scales, key=lambda s: abs(10 / s - abs(step))))
    assert seen_flip == {False, True} and seen_scale == set(AUGMENT.scales)


def test_resize_and_plain_view():
    example = Coded()[2]
    plain = Augment(crop=(10, 14), scales=(1.0,), hflip=0.0)
    view = plain(example, np.random.default_rng(0))
    np.testing.assert_array_equal(view["image"], example["image"])
    np.testing.assert_array_equal(view["label"], example["label"])
    halved = dataclasses.replace(plain, resize=(5, 7), crop=(5, 7))
    view = halved(example, np.random.default_rng(0))
    np.testing.assert_array_equal(view["label"], example["label"][1::2, 1::2])


def test_small_image_is_enlarged_with_its_aspect():
    for size in ((3, 50), (12, 3), (1, 1)):
        augment = Augment(crop=(6, 8), scales=(0.5,), hflip=0.0)
        height, width = augment._scaled_size(size, np.random.default_rng(0))
        assert height == 6 or width == 8
        assert abs(height / width - size[0] / size[1]) <= 0.5 / min(height, width) + 0.1
        view = augment(Coded(size=size)[0], np.random.default_rng(0))
        assert view["image"].shape == (6, 8, 3) and view["label"].shape == (6, 8)


def test_width_is_drawn_and_the_aspect_kept():
    augment = Augment(crop=(6, 8), resize=(20, 40), scale_width=(20, 60), hflip=0.0)
    rng = np.random.default_rng(0)
    sizes = np.array([augment._scaled_size((7, 9), rng) for _ in range(2000)])
    widths = sizes[:, 1]
    assert (abs(sizes[:, 0] - widths / 2) <= 1).all()
    assert widths.min() == 20 and widths.max() == 60
    # Uniform: a tenth of the draws in each tenth of the range.
    shares = np.histogram(widths, bins=10, range=(20, 60))[0] / 2000
    np.testing.assert_allclose(shares, 0.1, atol=0.03)
    assert augment.largest()._scaled_size((7, 9), rng) == (30, 60)
    small = dataclasses.replace(augment, scale_width=(1, 2))
    assert small._scaled_size((7, 9), rng) == (6, 12)  # enlarged to the crop
    assert augment(Coded()[0], rng)["image"].shape == (6, 8, 3)


def test_window_shows_the_wanted_class():
    for seed in range(30):
        view = AUGMENT(
            Coded(size=(30, 24))[0], np.random.default_rng(seed), contains=seed % 24
        )
        # A column of one pixel can vanish only when the picture shrinks.
        assert view is None or (view["label"] == seed % 24).any()
    assert AUGMENT(Coded()[0], np.random.default_rng(0), contains=200) is None


@pytest.mark.parametrize(
    "options",
    [{"crop": (0, 4)}, {"resize": (4,)}, {"scales": ()}, {"scales": (0.0,)}]
    + [{"hflip": 1.5}, {"scale_width": (3,)}, {"scale_width": (5, 3)}],
)
def test_bad_options(options):
    with pytest.raises(UserError, match=next(iter(options))):
        Augment(**{"crop": (6, 8), **options})


def test_batches_have_the_promised_arrays():
    source, target, donors = all_streams()
    batch = take(1, source, target=target, donors=donors, seed=1)[0]
    assert {name: (x.dtype.name, x.shape) for name, x in batch.items()} == {
        "source_image": ("uint8", (4, 6, 8, 3)),
        "source_label": ("uint8", (4, 6, 8)),
        "target_image": ("uint8", (2, 6, 8, 3)),
        "donor_image": ("uint8", (3, 6, 8, 3)),
        "donor_label": ("uint8", (3, 6, 8)),
        "donor_class": ("int32", (3,)),
    }
    np.testing.assert_array_equal(batch["donor_class"], [0, 2, 0])
    for label, class_id in zip(batch["donor_label"], [0, 2, 0], strict=True):
        assert (label == class_id).any()
    assert set(take(1, source, seed=1)[0]) == {"source_image", "source_label"}


def test_resumed_batches_equal_the_uninterrupted_ones():
    source, target, donors = all_streams()
    options = {"target": target, "donors": donors, "seed": 3}
    whole = take(6, source, **options)
    assert_same(whole[4:], take(2, source, start_step=4, num_threads=1, **options))
    assert any(
        (a["source_image"] != b["source_image"]).any()
        for a, b in zip(whole, take(6, source, target=target, seed=4), strict=True)
    )


def test_process_workers_change_nothing():
    source, target, donors = all_streams()
    options = {"target": target, "donors": donors, "seed": 3}
    here = take(3, source, **options)
    assert_same(here, take(3, source, num_workers=1, num_threads=1, **options))


def test_processes_share_the_global_batch():
    source, target, donors = all_streams()
    options = {"target": target, "donors": donors, "seed": 5}
    whole = take(3, source, **options)
    for process in (0, 1):
        part = take(3, source, process_index=process, process_count=2, **options)
        for a, b in zip(whole, part, strict=True):
            for name in a:
                half = len(a[name]) // 2
                block = slice(process * half, (process + 1) * half)
                rows = slice(None) if "donor" in name else block
                np.testing.assert_array_equal(a[name][rows], b[name])
    with pytest.raises(UserError, match="batch_size=4.*3 process"):
        pipeline.train_batches(source, seed=0, process_count=3)


def test_each_epoch_has_every_item_in_a_new_order():
    plain = Augment(crop=(10, 14), scales=(1.0,), hflip=0.5)
    batches = take(12, Domain(Coded(6), plain, 2), seed=0)
    order = np.concatenate([b["source_image"][:, 0, 0, 0] for b in batches])
    epochs = order.reshape(4, 6)
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    # An item's augmentation is drawn anew in each epoch, too.
    labels = np.concatenate([b["source_label"] for b in batches])
    assert any(len(set(labels[order == item][:, 0, 0])) == 2 for item in range(6))


def test_errors_arrive_as_they_were_raised():
    batches = pipeline.train_batches(Domain(Coded(broken=2), AUGMENT, 4), seed=0)
    with pytest.raises(UserError) as error:
        for _ in range(4):
            next(batches)
    batches.close()
    assert str(error.value) == "picture.png: cannot be read"


def test_close_ends_the_threads():
    before = set(threading.enumerate())
    batches = pipeline.train_batches(Domain(Coded(), AUGMENT, 4), seed=0)
    next(batches)
    started = [t for t in threading.enumerate() if t not in before]
    batches.close()
    for thread in started:
        thread.join(timeout=10)
    assert started and not any(t.is_alive() for t in started)


def test_closed_batches_are_no_surprise():
    batches = pipeline.train_batches(Domain(Coded(), AUGMENT, 4), seed=0)
    batches.close()
    batches.close()
    with pytest.raises(ValueError, match="closed"):
        next(batches)


TRAINER = """
import multiprocessing
from tests.test_pipeline import AUGMENT, Coded
from tufl_jax.data import pipeline
domain = pipeline.Domain(Coded(), AUGMENT, 4)
batches = pipeline.train_batches(domain, seed=0, num_workers=1, num_threads=1)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
input()
"""


def start_trainer():
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER],
        cwd=pathlib.Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return trainer, int(trainer.stdout.readline())


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return False
    return state[0] != "Z"  # a zombie only waits for init


@pytest.mark.skipif(sys.platform != "linux", reason="uses a Linux signal")
def test_workers_die_with_a_killed_trainer():
    trainer, worker = start_trainer()
    assert alive(worker)
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


def test_forgotten_batches_end_quietly():
    trainer, worker = start_trainer()
    _, errors = trainer.communicate("\n", timeout=120)
    assert trainer.returncode == 0 and errors == ""
    assert not alive(worker)


def test_read_ahead():
    names = [
        item["name"] for item in pipeline.read_ahead(Coded(), [5, 0, 3], num_threads=2)
    ]
    assert names == ["5", "0", "3"]
    assert list(pipeline.read_ahead(Coded(), [])) == []
    items = pipeline.read_ahead(Coded(broken=2), range(4), num_threads=1)
    assert [next(items)["name"], next(items)["name"]] == ["0", "1"]
    with pytest.raises(UserError, match="picture.png"):
        next(items)


def test_read_ahead_is_bounded():
    read = []

    class Counting(Coded):
        def __getitem__(self, index):
            read.append(index)
            return index

    items = pipeline.read_ahead(Counting(), range(1000), num_threads=2)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    items.close()
    assert len(read) <= 3 + 4


def test_an_undecoded_image_gives_the_same_view():
    """Whatever scale, window and mirror image are drawn, to the bit."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (43, 50, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    photograph = reading.Photograph(file.getvalue(), "a.png")
    augments = (
        Augment(crop=(10, 12), scales=(0.3, 0.5, 1.0, 1.7), hflip=0.5),
        Augment(crop=(10, 12), resize=(20, 70), scales=(0.9, 1.0)),
        Augment(crop=(60, 60), scales=(1.0,)),
    )
    for augment in augments:
        for seed in range(40):
            views = [
                augment({"image": x}, np.random.default_rng(seed))["image"]
                for x in (image, photograph)
            ]
            np.testing.assert_array_equal(*views)
            assert views[0].shape == (*augment.crop, 3)


def test_training_reads_through_undecoded(tmp_path):
    replicas.cityscapes(tmp_path)
    spec = config.base().data.eval
    spec.update(name="cityscapes", root=str(tmp_path), split="train")
    source = sources.build(spec, classes=labels.cityscapes(19), seed=0, labelled=True)

    class Decoded:
        def __len__(self):
            return len(source)

        def __getitem__(self, index):
            return source[index]

    def batches(of):
        augment = Augment(crop=(16, 24), scales=(0.75, 1.0, 1.5))
        with contextlib.closing(
            pipeline.train_batches(Domain(of, augment, 2), seed=3)
        ) as it:
            return [next(it) for _ in range(4)]

    for a, b in zip(batches(source), batches(Decoded()), strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
