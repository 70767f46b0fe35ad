"""Securing visually-aware recommenders: the thin module behind the seven notebooks."""
