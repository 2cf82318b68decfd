"""What /? and its kin print; the words are Ollama's, which people know."""

from __future__ import annotations

from corral.cli.parameters import PARAMETERS

_COLUMN = 22


def _page(title: str, rows: list[tuple[str, str]], column: int = _COLUMN) -> str:
    return "\n".join([title, *(f"  {left:<{column}} {right}" for left, right in rows)]) + "\n"


COMMANDS = (
    _page(
        "Available Commands:",
        [
            ("/set", "Set session variables"),
            ("/show", "Show model information"),
            ("/load <model>", "Load a session or model"),
            ("/save <model>", "Save your current session"),
            ("/list", "List the models that are here"),
            ("/clear", "Clear session context"),
            ("/bye", "Exit"),
            ("/?, /help", "Help for a command"),
            ("/? shortcuts", "Help for keyboard shortcuts"),
        ],
        column=15,
    )
    + '\nUse """ to begin a multi-line message.\n'
)
SET = _page(
    "Available Commands:",
    [
        ("/set parameter ...", "Set a parameter"),
        ("/set system <string>", "Set system message"),
        ("/set history", "Enable history"),
        ("/set nohistory", "Disable history"),
        ("/set wordwrap", "Enable wordwrap and formatting"),
        ("/set nowordwrap", "Disable wordwrap and formatting"),
        ("/set format json", "Enable JSON mode"),
        ("/set noformat", "Disable formatting to JSON"),
        ("/set verbose", "Show LLM stats"),
        ("/set quiet", "Disable LLM stats"),
        ("/set think [level]", "Enable thinking"),
        ("/set nothink", "Disable thinking"),
    ],
)
SHOW = _page(
    "Available Commands:",
    [
        ("/show info", "Show details for this model"),
        ("/show license", "Show model license"),
        ("/show modelfile", "Show Modelfile for this model"),
        ("/show parameters", "Show parameters for this model"),
        ("/show system", "Show system message"),
        ("/show template", "Show prompt template"),
    ],
    column=18,
)
SHORTCUTS = _page(
    "Available keyboard shortcuts:",
    [
        ("Ctrl + a", "Move to the beginning of the line (Home)"),
        ("Ctrl + e", "Move to the end of the line (End)"),
        ("Alt + b", "Move back (left) one word"),
        ("Alt + f", "Move forward (right) one word"),
        ("Ctrl + k", "Delete the text after the cursor"),
        ("Ctrl + u", "Delete the text before the cursor"),
        ("Ctrl + w", "Delete the word before the cursor"),
        ("Ctrl + r", "Search the history"),
        ("Ctrl + l", "Clear the screen"),
        ("Ctrl + g", "Write the message in a text editor"),
        ("Ctrl + c", "Stop the model from responding"),
        ("Ctrl + d", "Exit the chat (/bye)"),
    ],
    column=12,
)
_VALUES = {int: "<int>", float: "<float>", list: "<string> ..."}
PARAMETER = _page(
    "Available Parameters:",
    [(f"/set parameter {name} {_VALUES[kind]}", words) for name, (kind, words) in PARAMETERS.items()],
    column=42,
)
TOPICS = {"set": SET, "/set": SET, "show": SHOW, "/show": SHOW, "shortcut": SHORTCUTS, "shortcuts": SHORTCUTS}
