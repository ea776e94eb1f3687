"""What AIMET had in `aimet_tensorflow.utils`: for sessions of TensorFlow 1."""
