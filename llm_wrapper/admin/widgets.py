"""Form fields and editors for code, JSON and lists of names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Never

from django import forms
from django.apps import apps
from django.contrib.admin.widgets import AdminTextInputWidget

from llm_wrapper.validation import at_line

if TYPE_CHECKING:

    class AceWidget(forms.Textarea):
        def __init__(self, **options: Any) -> None: ...

elif apps.is_installed("django_ace"):
    from django_ace import AceWidget

if apps.is_installed("django_ace"):

    class CodeEditor(AceWidget):
        """Ace with a light and a dark theme; admin.js follows the page's theme."""

        def __init__(self, mode: str, lines: int) -> None:
            super().__init__(
                mode=mode,
                theme="github_light_default",
                wordwrap=True,
                width="100%",
                height=None,
                minlines=lines,
                maxlines=40,
                fontsize="13px",
                tabsize=4,
                showprintmargin=False,
                toolbar=False,
                # Ace's own checks know nothing of what is right here, and would overwrite the server's marks.
                useworker=False,
            )

        @property
        def media(self) -> forms.Media:
            dark = forms.Media(js=["django_ace/ace/ace.js", "django_ace/ace/theme-github_dark.js"])
            return super().media + dark


def code_editor(mode: str, lines: int = 6) -> forms.Widget:
    """An editor for `python`, `json` or `twig` (near to Jinja); without django_ace a plain text area."""
    if apps.is_installed("django_ace"):
        return CodeEditor(mode, lines)
    return forms.Textarea(attrs={"class": "llmw-input llmw-mono", "rows": lines, "spellcheck": "false"})


def switch() -> forms.Widget:
    """A yes or no in the look of the admin in use."""
    if apps.is_installed("unfold"):
        from unfold.widgets import UnfoldBooleanSwitchWidget

        return UnfoldBooleanSwitchWidget()
    return forms.CheckboxInput()


def text_input() -> forms.Widget:
    """A line of text in the look of the admin in use."""
    if apps.is_installed("unfold"):
        from unfold.widgets import UnfoldAdminTextInputWidget

        return UnfoldAdminTextInputWidget()
    return AdminTextInputWidget()


class CodeField(forms.CharField):
    """Text that is kept as it was written: no stripping, and the line ends that every platform agrees on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "strip": False})

    def to_python(self, value: Any) -> str:
        text = str(super().to_python(value))
        return text.replace("\r\n", "\n").replace("\r", "\n")


class JSONField(forms.JSONField):
    """JSON of one kind, shown indented; the error says on which line it is."""

    kind: type = dict
    kind_name = "an object: {…}"

    def __init__(self, **options: Any) -> None:
        # Django repeats values with a callable default in a hidden input, which is for values like "now".
        super().__init__(**{**options, "show_hidden_initial": False})

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, str):  # what was submitted and did not parse
            return value
        return json.dumps(value, indent=2, ensure_ascii=False)

    def bound_data(self, data: Any, initial: Any) -> Any:
        return initial if self.disabled else data

    def to_python(self, value: Any) -> Any:
        if not isinstance(value, str):
            return self.kind() if value is None else value
        if not value.strip():
            return self.kind()
        found = self._parse(value)
        if found is None:
            return self.kind()
        if not isinstance(found, self.kind):
            raise at_line(f"This must be {self.kind_name}.")
        return found

    def _parse(self, text: str) -> Any:
        try:
            found = json.loads(text, parse_constant=_refuse_constant)
            stored = json.dumps(found, ensure_ascii=False)
            stored.encode()
        except json.JSONDecodeError as error:
            raise at_line(f"This is not valid JSON: {error.msg}.", error.lineno) from None
        except UnicodeEncodeError:
            raise at_line("This holds half of a surrogate pair, which cannot be stored.") from None
        except RecursionError:
            raise at_line("This is nested too deeply.") from None
        if "\\u0000" in stored:
            raise at_line("This holds a NUL character, which cannot be stored.")
        return found


def _refuse_constant(name: str) -> Never:
    raise at_line(f"{name} is not valid JSON. Use null or a number.")


class JSONListField(JSONField):
    kind = list
    kind_name = "a list: […]"


class NamesField(forms.CharField):
    """A list of names, written with commas between them (a JSON list is taken too)."""

    def __init__(self, **options: Any) -> None:
        # The model's JSONField passes what a JSON form field would need.
        kept = {key: options[key] for key in options.keys() - {"encoder", "decoder"}}
        super().__init__(**{**kept, "show_hidden_initial": False})

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, list):
            simple = all(isinstance(name, str) and name.isidentifier() for name in value)
            return ", ".join(value) if simple else json.dumps(value)
        return value

    def to_python(self, value: Any) -> Any:
        text = str(super().to_python(value))
        if text.startswith("["):
            try:
                names = json.loads(text)
            except (ValueError, RecursionError):
                raise at_line("This is not a valid list of names.") from None
        else:
            names = [name for name in (part.strip() for part in text.split(",")) if name]
        for name in names:
            if not isinstance(name, str) or not name.isidentifier():
                raise at_line(f"{name!r} is not a name. Write letters, digits and _, with commas between.")
        return list(dict.fromkeys(names))
