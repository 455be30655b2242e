"""Run LLM conversations from data: prompts, tools and model configs are rows and YAML files."""

__version__ = "0.1.0"
