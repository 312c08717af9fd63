"""Threshold-adaptive unsupervised focal loss for segmentation, in JAX."""

__version__ = "0.1.0"
