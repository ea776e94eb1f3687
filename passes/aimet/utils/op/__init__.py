"""What AIMET had in `aimet_tensorflow.utils.op`: operations in the graph of a session."""
