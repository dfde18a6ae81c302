"""What must hold of every input, one target a module; ``scripts/fuzz`` looks for one that breaks it.

A target is a function `run(data: bytes)` that raises if its promise is broken, and `SEEDS`, inputs to start from.
"""
