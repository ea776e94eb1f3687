"""Models of Keras 2 in sessions of TensorFlow 1 of their own, with statistics that bite."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import tensorflow as tf

__all__ = ["InSession", "in_session"]

v1 = tf.compat.v1


@attrs.frozen
class InSession:
    """A model in a session, and the names of its ends."""

    session: Any
    source: str
    target: str

    def op(self, name: str, session: Any = None) -> Any:
        return (session or self.session).graph.get_operation_by_name(name)

    def run(self, x: np.ndarray, session: Any = None) -> np.ndarray:
        return (session or self.session).run(f"{self.target}:0", {f"{self.source}:0": x})

    def value(self, name: str, session: Any = None) -> np.ndarray:
        """A variable's value, float64."""
        session = session or self.session
        with session.graph.as_default():
            (variable,) = [one for one in v1.global_variables() if one.name == f"{name}:0"]
        return np.asarray(session.run(variable), np.float64)

    def values(self, session: Any = None) -> dict[str, np.ndarray]:
        """All variables' values."""
        session = session or self.session
        with session.graph.as_default():
            variables = v1.global_variables()
        return dict(zip([one.name for one in variables], session.run(variables), strict=True))

    def set(self, name: str, value: np.ndarray) -> None:
        with self.session.graph.as_default():
            (variable,) = [one for one in v1.global_variables() if one.name == f"{name}:0"]
        self.session.run(variable.initializer, {variable.initializer.inputs[1]: value})


def in_session(make: Any, seed: int = 0, lifted: bool = False) -> InSession:
    """A model in a session of its own; `lifted` puts some of the betas far above three gammas."""
    import tf_keras

    graph = tf.Graph()
    with graph.as_default():
        session = v1.Session(graph=graph)
        tf_keras.src.backend.set_session(session)
        model = make()
        session.run(v1.global_variables_initializer())
        generator = np.random.default_rng(seed)
        for variable in model.weights:
            name, shape = variable.name, tuple(variable.shape)
            if "moving_variance" in name:
                value = generator.uniform(0.3, 2.0, shape)
            elif "gamma" in name:
                value = generator.uniform(0.5, 1.5, shape) * generator.choice([-1, 1], shape)
            elif "kernel" in name:
                fan_in = np.prod(shape[:2] if "depthwise" in name else shape[:-1])
                value = generator.normal(0.0, np.sqrt(2 / fan_in), shape)
            else:
                value = generator.normal(0.0, 0.4, shape)
            if "beta" in name and lifted:
                value[::2] = np.abs(value[::2]) + 8
            session.run(variable.initializer, {variable.initializer.inputs[1]: value})
    return InSession(session, model.inputs[0].op.name, model.outputs[0].op.name)
