"""Peers, each with the setting that is measured."""
