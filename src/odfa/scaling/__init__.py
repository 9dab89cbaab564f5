"""What light would buy: cost and energy of training steps, measured and modelled, crossovers, plans, shared OPUs."""

from odfa.scaling.cost import Cost, Model, cost
from odfa.scaling.crossover import Crossing, Race, attribution, band, crossing
from odfa.scaling.family import FAMILIES, Gpt, members
from odfa.scaling.measurement import Measurement, measure
from odfa.scaling.method import METHODS, SWITCHES, Layout, Method
from odfa.scaling.model import model_of, walks_of_gpt, walks_of_module, walks_of_run
from odfa.scaling.opu import OPUS, Beam, Opu, beam, get_opu
from odfa.scaling.plan import PlanConfig, plan
from odfa.scaling.processor import PROCESSORS, Processor, get_processor
from odfa.scaling.share import Sharing, Throughput, closed_form, simulate
from odfa.scaling.study import StudyConfig, curve, study
from odfa.scaling.tally import Tally
from odfa.scaling.walk import Walk, walk_module, walk_run

__all__ = [
    "FAMILIES",
    "METHODS",
    "OPUS",
    "PROCESSORS",
    "SWITCHES",
    "Beam",
    "Cost",
    "Crossing",
    "Gpt",
    "Layout",
    "Measurement",
    "Method",
    "Model",
    "Opu",
    "PlanConfig",
    "Processor",
    "Race",
    "Sharing",
    "StudyConfig",
    "Tally",
    "Throughput",
    "Walk",
    "attribution",
    "band",
    "beam",
    "closed_form",
    "cost",
    "crossing",
    "curve",
    "get_opu",
    "get_processor",
    "measure",
    "members",
    "model_of",
    "plan",
    "simulate",
    "study",
    "walk_module",
    "walk_run",
    "walks_of_gpt",
    "walks_of_module",
    "walks_of_run",
]
