"""The REST face: sessions, messages and usage over HTTP. Mount it with one line:

path("api/", include("llm_wrapper.api.urls"))

Needs the extra `api`, and "ninja" in INSTALLED_APPS for the interactive pages at `docs`. See docs/api.md.
"""
