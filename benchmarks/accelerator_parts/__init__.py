"""The parts of `benchmarks/accelerator.py`, each a function of device and sizes that returns what it measured."""
