"""Random draws for rendered streets."""

import math

import numpy as np

Colour = tuple[float, float, float]


class Dice:
    """Uniform draws from one generator, taken in blocks: a scalar draw is slow."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._pool: list[float] = []

    def unit(self) -> float:
        if not self._pool:
            self._pool = self._rng.random(1024).tolist()
        return self._pool.pop()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick(self, options):
        return options[int(self.unit() * len(options))]

    def count(self, low: int, high: int) -> int:
        return low + int(self.unit() * (high - low + 1))

    def weighted(self, weights: dict[str, float]) -> str:
        rest = self.unit() * sum(weights.values())
        for name, weight in weights.items():
            if rest < weight:
                return name
            rest -= weight
        return name

    def poisson(self, mean: float) -> int:
        limit, product, number = math.exp(-mean), self.unit(), 0
        while product > limit:
            product *= self.unit()
            number += 1
        return number

    def tint(self, colour: Colour, spread: float) -> Colour:
        """The colour, lighter or darker and shifted a little in each channel."""
        common = self.between(-spread, spread)
        return tuple(c + common + self.between(-spread, spread) / 2 for c in colour)
