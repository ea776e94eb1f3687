"""The shipped techniques: one a file, found by the framework through the entry-point group `tfpasses.passes`."""
