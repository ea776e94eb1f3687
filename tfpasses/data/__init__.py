"""Data for passes that look at such: what users have, as samples of a model's inputs. TensorFlow is imported by what needs it."""

from tfpasses.data.arrays import ArraySamples
from tfpasses.data.images import Images
from tfpasses.data.readers import read_data
from tfpasses.data.records import Records
from tfpasses.data.shards import Shard, shared_out
from tfpasses.data.sources import samples_of
from tfpasses.data.streams import StreamSamples

__all__ = ["ArraySamples", "Images", "Records", "Shard", "StreamSamples", "read_data", "samples_of", "shared_out"]
