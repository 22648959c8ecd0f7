"""Scoring live sources for months: frames in, decisions and events out."""
