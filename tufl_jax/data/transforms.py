"""Host augmentation of uint8 examples: scale, crop and flip."""

import dataclasses

import numpy as np
from PIL import Image

from tufl_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augment:
    """Random scale, random crop and random horizontal flip of one example.

    Sizes are (height, width) in pixels. The image is brought to `resize` (None: its
    own size), times one of `scales` (or, with `scale_width`, to a width drawn uniformly
    from that range, its aspect kept), enlarged with its aspect kept where it is still
    smaller than `crop`; then a window of `crop` is cut and mirrored with probability
    `hflip`. All in one resampling, of the window only: bilinear for the image
    (Pillow's, which averages over all covered pixels when it shrinks), nearest for
    the label. Paper section IV-C; the defaults are the release's.

    Raises UserError for an impossible option.
    """

    crop: tuple[int, int]
    resize: tuple[int, int] | None = None
    scales: tuple[float, ...] = (0.75, 1.0, 1.25, 1.5)
    hflip: float = 0.5
    scale_width: tuple[float, float] | None = None

    def __post_init__(self):
        for name, size in (("crop", self.crop), ("resize", self.resize)):
            if size is not None and (len(size) != 2 or min(size) < 1):
                raise UserError(f"{name}={size}: give (height, width), both positive")
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"scales={self.scales}: give one or more positive factors")
        if self.scale_width is not None and not (
            len(self.scale_width) == 2
            and 0 < self.scale_width[0] <= self.scale_width[1]
        ):
            raise UserError(
                f"scale_width={self.scale_width}: give (least, most) pixels, positive"
            )
        if not 0 <= self.hflip <= 1:
            raise UserError(f"hflip={self.hflip}: give a probability from 0 to 1")

    def largest(self) -> "Augment":
        """The same, always at the largest scale."""
        width = self.scale_width and (self.scale_width[1],) * 2
        return dataclasses.replace(self, scales=(max(self.scales),), scale_width=width)

    def __call__(
        self, example: dict, rng: np.random.Generator, *, contains: int | None = None
    ) -> dict | None:
        """One random view.

        Args:
            example: 'image' u8[H, W, 3] and, unless unlabelled, 'label' u8[H, W].
            rng: the only source of randomness.
            contains: a class index that the window has to show; it is then centred on
                a random pixel of that class, as far as the borders allow.
        Returns:
            {'image': u8[h, w, 3], 'label': u8[h, w] if given}, or None if no pixel of
            the class `contains` is left at the drawn scale.
        """
        image, label = example["image"], example.get("label")
        size = self._scaled_size(image.shape[:2], rng)
        window = _uniform(size, self.crop, rng)
        if contains is not None:
            rows, columns = np.nonzero(nearest(label, size, (0, 0), size) == contains)
            if not len(rows):
                return None
            pixel = rng.integers(len(rows))
            window = _centred((rows[pixel], columns[pixel]), size, self.crop)
        mirror = -1 if rng.random() < self.hflip else 1
        view = {"image": bilinear(image, size, window, self.crop)[:, ::mirror]}
        if label is not None:
            view["label"] = nearest(label, size, window, self.crop)[:, ::mirror]
        return {name: np.ascontiguousarray(x) for name, x in view.items()}

    def _scaled_size(self, size, rng) -> tuple[int, int]:
        size = self.resize or size
        if self.scale_width is None:
            scale = self.scales[rng.integers(len(self.scales))]
        else:
            scale = rng.uniform(*self.scale_width) / size[1]
        height, width = (x * scale for x in size)
        enlarge = max(1.0, self.crop[0] / height, self.crop[1] / width)
        return (
            max(self.crop[0], round(height * enlarge)),
            max(self.crop[1], round(width * enlarge)),
        )


def _uniform(size, crop, rng) -> tuple[int, int]:
    top, left = (int(rng.integers(s - c + 1)) for s, c in zip(size, crop, strict=True))
    return top, left


def _centred(pixel, size, crop) -> tuple[int, int]:
    top, left = (
        int(min(max(p - c // 2, 0), s - c))
        for p, s, c in zip(pixel, size, crop, strict=True)
    )
    return top, left


def bilinear(image: np.ndarray, size, window, crop) -> np.ndarray:
    """The part `crop` at (top, left) `window` of u8[H, W, 3] resized to `size`."""
    (height, width), (top, left) = image.shape[:2], window
    box = (
        left * width / size[1],
        top * height / size[0],
        (left + crop[1]) * width / size[1],
        (top + crop[0]) * height / size[0],
    )
    picture = Image.fromarray(image)
    return np.asarray(
        picture.resize((crop[1], crop[0]), Image.Resampling.BILINEAR, box=box)
    )


def nearest(label: np.ndarray, size, window, crop) -> np.ndarray:
    """As `bilinear` for u8[H, W] ids: the source pixel under each pixel's centre."""
    rows, columns = (
        (2 * (start + np.arange(count)) + 1) * full // (2 * scaled)
        for start, count, full, scaled in zip(
            window, crop, label.shape, size, strict=True
        )
    )
    return label[rows][:, columns]
