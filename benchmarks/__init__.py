"""What the gate costs, each figure as a ratio to decoding and encoding the same JSON once: ``scripts/bench``."""
