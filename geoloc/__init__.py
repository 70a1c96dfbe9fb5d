"""Tell where photographs were taken, for whole archives at a time."""

__version__ = "0.1.0"
