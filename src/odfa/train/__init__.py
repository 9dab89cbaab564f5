"""Training: a session stepped through its data, its run folder kept up to date."""

from odfa.train.interrupt import Interrupted
from odfa.train.loop import batches, resume, run, train_step

__all__ = ["Interrupted", "batches", "resume", "run", "train_step"]
