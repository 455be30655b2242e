"""The filters of templates. What is not here does not exist: Jinja's own set holds escapes and bombs.

Where a name is also Jinja's, it does the same here, except that it gives lists and not generators, and that
`tojson` writes plain JSON and `escape` plain text, since prompts are not HTML pages.
"""

from . import data, numbers, text
from .registry import FILTERS

__all__ = ["FILTERS", "data", "numbers", "text"]
