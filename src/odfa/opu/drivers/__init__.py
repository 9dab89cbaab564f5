"""Drivers over other people's hardware libraries; each imports its library when it is opened, not before."""
