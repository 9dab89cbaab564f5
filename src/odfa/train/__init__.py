"""Training: the steps of a run, and the run folder that records them."""

from odfa.train.interrupt import Interrupted
from odfa.train.loop import batches, resume, run, train_step

__all__ = ["Interrupted", "batches", "resume", "run", "train_step"]
