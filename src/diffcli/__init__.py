"""A terminal workbench for pixel-space diffusion models."""

__version__ = "0.1.0"
