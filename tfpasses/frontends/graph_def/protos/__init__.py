"""NodeDefs and GraphDefs by themselves: what they say, parts of them, new ones."""
