"""Time and energy of training steps, measured and modelled: crossovers with and without light, plans, shared OPUs."""

from odfa.scaling.cost import Cost, Model, step_cost
from odfa.scaling.crossover import Crossing, Race, attribution, band, crossing
from odfa.scaling.family import FAMILIES, Gpt, members
from odfa.scaling.measurement import MachineMeasurement, measure_machine
from odfa.scaling.method import PLANNED_METHODS, SWITCHES, PlannedMethod, StepLayout
from odfa.scaling.model import model_of, walks_of_gpt, walks_of_module, walks_of_run
from odfa.scaling.opu import OPUS, Beam, Opu, beam, get_opu
from odfa.scaling.plan import make_plan
from odfa.scaling.plan_settings import PlanSettings
from odfa.scaling.processor import PROCESSORS, Processor, get_processor
from odfa.scaling.share import Sharing, Throughput, closed_form, simulate
from odfa.scaling.study import StudySettings, curve, run_study
from odfa.scaling.tally import Tally
from odfa.scaling.walk import Walk, walk_module, walk_run

__all__ = [
    "FAMILIES",
    "PLANNED_METHODS",
    "OPUS",
    "PROCESSORS",
    "SWITCHES",
    "Beam",
    "Cost",
    "Crossing",
    "Gpt",
    "StepLayout",
    "MachineMeasurement",
    "PlannedMethod",
    "Model",
    "Opu",
    "PlanSettings",
    "Processor",
    "Race",
    "Sharing",
    "StudySettings",
    "Tally",
    "Throughput",
    "Walk",
    "attribution",
    "band",
    "beam",
    "closed_form",
    "step_cost",
    "crossing",
    "curve",
    "get_opu",
    "get_processor",
    "measure_machine",
    "members",
    "model_of",
    "make_plan",
    "simulate",
    "run_study",
    "walk_module",
    "walk_run",
    "walks_of_gpt",
    "walks_of_module",
    "walks_of_run",
]
