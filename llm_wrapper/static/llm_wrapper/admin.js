// The editors' theme, the marks beside lines with errors, and the preview. Talks to this site only.
(function () {
  "use strict";

  const isDark = () => {
    const root = document.documentElement;
    const theme = root.dataset.theme;
    if (root.classList.contains("dark") || theme === "dark") return true;
    return theme === "auto" && window.matchMedia("(prefers-color-scheme: dark)").matches;
  };

  const editors = () =>
    Array.from(document.querySelectorAll(".django-ace-widget"), (widget) => widget.editor).filter(Boolean);

  const setTheme = () => {
    const theme = isDark() ? "ace/theme/github_dark" : "ace/theme/github_light_default";
    editors().forEach((editor) => editor.setTheme(theme));
  };

  const editorOf = (field) => {
    const textarea = document.getElementById("id_" + field);
    const widget = textarea && textarea.parentElement.querySelector(".django-ace-widget");
    return widget && widget.editor;
  };

  // Puts the errors that the page lists beside their lines, and takes away older marks.
  const markLines = () => {
    editors().forEach((editor) => editor.session.clearAnnotations());
    const byField = {};
    document.querySelectorAll("[data-llmw-line]").forEach((item) => {
      (byField[item.dataset.llmwField] ||= []).push({
        row: Number(item.dataset.llmwLine) - 1,
        column: 0,
        text: item.textContent.trim(),
        type: "error",
      });
    });
    Object.entries(byField).forEach(([field, marks]) => {
      const editor = editorOf(field);
      if (editor) editor.session.setAnnotations(marks);
    });
  };

  const say = (target, text) => {
    const note = document.createElement("p");
    note.className = "llmw-error";
    note.textContent = text;
    target.replaceChildren(note);
  };

  const preview = async (button) => {
    const target = document.getElementById(button.dataset.llmwInto);
    button.disabled = true;
    try {
      const response = await fetch(button.dataset.llmwPreview, {
        method: "POST",
        body: new FormData(button.closest("form")),
        credentials: "same-origin",
        redirect: "error",
      });
      if (response.ok) {
        // The server escapes every value in this piece of the page.
        target.innerHTML = await response.text();
        markLines();
      } else {
        say(target, "The server answered " + response.status + ". Reload the page and try again.");
      }
    } catch {
      say(target, "The server could not be reached, or you are no longer logged in.");
    } finally {
      button.disabled = false;
    }
  };

  window.addEventListener("load", () => {
    // django_ace makes its editors in a load handler of its own, which may come after this one.
    setTimeout(() => {
      setTheme();
      markLines();
    });
    new MutationObserver(setTheme).observe(document.documentElement, {
      attributes: true,
      attributeFilter: ["class", "data-theme"],
    });
    document.querySelectorAll("[data-llmw-preview]").forEach((button) => {
      button.addEventListener("click", () => preview(button));
    });
  });
})();
