"""Data for passes that look at such: what users have, as samples of a model's inputs. TensorFlow is imported by what needs it."""

from tfpasses.data.arrays import ArraySamples
from tfpasses.data.readers import read_data
from tfpasses.data.sources import samples_of

__all__ = ["ArraySamples", "read_data", "samples_of"]
