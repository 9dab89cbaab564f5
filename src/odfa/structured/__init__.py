"""Structured random matrices: Gaussian in entries and spectrum, applied by fast Walsh-Hadamard transforms."""

from odfa.structured.accelerated import triton_runs_on as triton_runs_on
from odfa.structured.keyed import quarter_circle as quarter_circle
from odfa.structured.transform import Structured as Structured
from odfa.structured.transform import compiler_on as compiler_on
from odfa.structured.transform import kernels_available as kernels_available
