"""tf.data datasets as sources: those of eager execution, and those that belong to a `tf.Graph` of TensorFlow 1."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from tfpasses.data.streams import Source

__all__ = ["eagerly", "elements", "graph_of", "is_dataset", "of_dataset"]


def is_dataset(data: Any) -> bool:
    """Whether it is one. Where TensorFlow is not imported there is none."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(data, tf.data.Dataset)


def of_dataset(dataset: Any, name: str = "the dataset") -> Source:
    """Read a dataset, as often as one likes."""
    import tensorflow as tf

    graph = graph_of(dataset)
    if graph is None:
        with eagerly():
            size = int(dataset.cardinality())
    else:
        with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
            size = int(session.run(tf.data.experimental.cardinality(dataset)))

    def part(rank: int, count: int) -> Source:
        return of_dataset(sharded(dataset, rank, count), f"{name}, for worker {rank} of {count},")

    shape = getattr(tf.nest.flatten(dataset.element_spec)[0], "shape", None)  # of a nested dataset there is none
    batch = None if shape is None or not shape.rank else shape[0]
    return Source(
        name,
        lambda: elements(dataset) if graph is None else session_elements(dataset, graph),
        infinite=size == tf.data.INFINITE_CARDINALITY,
        length=size if size >= 0 else None,
        batch=batch,
        part=part if graph is None else None,
        fixed_memory=True,
    )


def sharded(dataset: Any, rank: int, count: int) -> Any:
    """The part of a dataset that `tf.data` gives one of so many workers: files, where it reads from such and there are enough, else
    elements, or as the dataset's `experimental_distribute.auto_shard_policy` says.
    """
    from tensorflow.python.distribute import input_ops  # what a strategy deals datasets out with

    with eagerly():
        return input_ops.auto_shard_dataset(dataset, count, rank)


def eagerly() -> Any:
    """A context in which operations run at once, though a `tf.Graph` may be the default one (which `tf.init_scope` would keep to)."""
    import tensorflow as tf

    return tf.__internal__.eager_context.eager_mode()


def graph_of(dataset: Any) -> Any:
    """The `tf.Graph` that a dataset was made in, or None where that was eagerly."""
    return getattr(dataset._variant_tensor, "graph", None)  # the one place that tells


def elements(dataset: Any) -> Iterator[Any]:
    """Iterate, also where a `tf.Graph` is the default one for something else."""
    with eagerly():
        iterator = iter(dataset)
    while True:
        with eagerly():
            element = next(iterator, END)
        if element is END:
            return
        yield element


END = object()


def session_elements(dataset: Any, graph: Any) -> Iterator[Any]:
    """The same by a session of the dataset's graph, which gets an iterator more."""
    import tensorflow as tf

    with graph.as_default():
        iterator = tf.compat.v1.data.make_initializable_iterator(dataset)
        following = iterator.get_next()
    session = tf.compat.v1.Session(graph=graph)  # not entered: what reads this must not find it to be the default one
    try:
        session.run(iterator.initializer)
        while True:
            try:
                element = session.run(following)
            except tf.errors.OutOfRangeError:
                return
            yield element
    finally:
        session.close()
