"""The parts of a recipe as strict pydantic models, one file for each part."""
