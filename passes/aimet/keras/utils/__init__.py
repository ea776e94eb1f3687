"""What AIMET had in `aimet_tensorflow.keras.utils`."""
