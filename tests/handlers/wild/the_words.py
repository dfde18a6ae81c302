# A neighbour of a handler file.
WORDS = {"good morning": "And to you", "good night": "Sleep well"}
