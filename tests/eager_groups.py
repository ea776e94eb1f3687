"""Grouped convolutions without a compiler: Keras compiles each call anew on a CPU, which takes a hundred times as long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import tensorflow as tf
from keras.src import backend

__all__ = ["eager_groups"]


@contextmanager
def eager_groups() -> Iterator[None]:
    """Within the block a grouped convolution (channels last) is one convolution a group, put side by side."""
    plain = backend.nn.conv

    def conv(inputs: Any, kernel: Any, *args: Any, **options: Any) -> Any:
        inputs, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
        groups = inputs.shape[-1] // kernel.shape[-2]
        if groups == 1 or options.get("data_format") == "channels_first":
            return plain(inputs, kernel, *args, **options)
        parts = zip(tf.split(inputs, groups, -1), tf.split(kernel, groups, -1), strict=True)
        return tf.concat([plain(part, own, *args, **options) for part, own in parts], -1)

    with mock.patch.object(backend.nn, "conv", conv):
        yield
