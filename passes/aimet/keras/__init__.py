"""What AIMET had in `aimet_tensorflow.keras`: for Keras models. Weights change in place, in the layers that the caller holds."""
