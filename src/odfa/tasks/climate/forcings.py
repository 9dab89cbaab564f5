"""Radiative forcing of the emission scenarios, from a table of CO2 concentrations (`co2.csv` names its sources)."""

import csv
from importlib.resources import files

import numpy as np

PATHWAYS = {"A1B": "A1B", "E1": "RCP3PD"}
"""Scenario → column of the table. E1 (Lowe et al., Eos 90, 2009) peaks and declines to 450 ppm of CO2-equivalent; no
table of its concentrations was found, so RCP3-PD, a pathway of the same kind, is used for it."""
_SENSITIVITY, _PREINDUSTRIAL = 5.35, 278.0


def forcing(scenario: str, years: np.ndarray) -> np.ndarray:
    """Forcing of CO2 in W/m² at the middle of each year, linear in time between the decades of the table.

        F = 5.35 W/m² ln(C / 278 ppm)

    Source: Myhre et al., Geophys. Res. Lett. 25, 1998; Meinshausen et al., Climatic Change 109, 2011.
    """
    text = files("odfa.data").joinpath("co2.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    decades = np.array([float(row["year"]) for row in rows])
    parts_per_million = np.array([float(row[PATHWAYS[scenario]]) for row in rows])
    forcing_Y: np.ndarray = _SENSITIVITY * np.log(np.interp(years, decades, parts_per_million) / _PREINDUSTRIAL)
    return forcing_Y
