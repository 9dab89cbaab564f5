"""The OPU as a scikit-learn transformer and as a torch module."""
