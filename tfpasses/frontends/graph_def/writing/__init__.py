"""Nodes as NodeDefs: as they were read where nobody touched them, and new ones."""
