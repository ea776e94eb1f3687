"""The Keras frontend: models in, models out. Importing it imports TensorFlow and Keras."""

from tfpasses.frontends.keras.evaluate import call_model, keras_evaluator
from tfpasses.frontends.keras.files import load_model, save_model
from tfpasses.frontends.keras.read import KerasModel, from_keras
from tfpasses.frontends.keras.write import to_keras, write

__all__ = ["KerasModel", "call_model", "from_keras", "keras_evaluator", "load_model", "save_model", "to_keras", "write"]
