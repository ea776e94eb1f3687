"""AIMET's names for cross-layer equalization and bias correction, over this package's own arithmetic. Where `aimet_tensorflow` stood, write
`tfpasses.passes.aimet`.

`keras` holds what works on Keras models, whose layers change in place; the other modules are for sessions of TensorFlow 1. docs/aimet.md
says what is as it was and what is not. Importing any of these modules imports neither TensorFlow nor Keras.
"""
