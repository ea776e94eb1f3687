"""The Keras frontend: models in, models out. Importing it imports TensorFlow and Keras."""

from tfpasses.frontends.keras.evaluate import keras_evaluator
from tfpasses.frontends.keras.files import load_model, save_model
from tfpasses.frontends.keras.read import KerasModel, from_keras
from tfpasses.frontends.keras.write import to_keras

__all__ = ["KerasModel", "from_keras", "keras_evaluator", "load_model", "save_model", "to_keras"]
