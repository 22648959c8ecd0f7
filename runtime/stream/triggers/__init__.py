"""Scoring a frame of a live source when a machine or a program asks for it, and answering whoever asked."""
