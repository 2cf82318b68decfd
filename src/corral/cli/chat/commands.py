"""What begins with a slash in a chat: /set, /show, /load, /save, /clear, /list, /?, /bye."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from corral.cli import human
from corral.cli.chat import help_texts
from corral.cli.chat.words import SHOW_WORDS, THINK_LEVELS, unquoted
from corral.cli.parameters import parse_parameter
from corral.errors import InvalidRequest, ModelNotFound

if TYPE_CHECKING:
    from corral.cli.chat.session import Chat


def is_command(text: str) -> bool:
    """Whether `text` is a command, or was meant as one; a path such as /etc/hosts is neither."""
    word = text.split(maxsplit=1)[0] if text.strip() else ""
    return word.startswith("/") and "/" not in word[1:] and "." not in word


def is_leaving(text: str) -> bool:
    return text.split(maxsplit=1)[0] in ("/bye", "/exit")


def obey(chat: Chat, text: str) -> None:
    """Does what the command says, or tells what is wrong with it.

    Raises:
        CorralError: from what it has started.
    """
    name, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    command = _COMMANDS.get(name)
    if command is None:
        say(f"Unknown command '{name}'. Type /? for help")
    else:
        command(chat, rest)


def say(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()


def _set(chat: Chat, rest: str) -> None:
    word, _, value = rest.partition(" ")
    if not word:
        say(help_texts.SET)
        return
    setter = _SETTERS.get(word)
    if setter is None:
        say(f"Unknown command '/set {word}'. Type /? for help")
        return
    setter(chat, value.strip())


def _set_parameter(chat: Chat, rest: str) -> None:
    name, *values = rest.split() or [""]
    if not name or not values:
        say(help_texts.PARAMETER)
        return
    try:
        chat.conversation.options[name] = parse_parameter(name, values)
    except InvalidRequest as error:
        say(f"Couldn't set parameter: {error}")
    else:
        say(f"Set parameter '{name}' to '{', '.join(values)}'")


def _set_system(chat: Chat, rest: str) -> None:
    if not rest:
        say(help_texts.SET)
        return
    quoted = len(rest) > 1 and rest[0] == rest[-1] == '"' and not rest.startswith('"""')
    chat.conversation.system = rest[1:-1] if quoted else unquoted(rest)
    say("Set system message.")


def _set_history(chat: Chat, _rest: str) -> None:
    chat.editor.keep_history(True)


def _set_nohistory(chat: Chat, _rest: str) -> None:
    chat.editor.keep_history(False)


def _set_wordwrap(chat: Chat, _rest: str) -> None:
    chat.conversation.is_formatted = True
    say("Set 'wordwrap' mode.")


def _set_nowordwrap(chat: Chat, _rest: str) -> None:
    chat.conversation.is_formatted = False
    say("Set 'nowordwrap' mode.")


def _set_format(chat: Chat, rest: str) -> None:
    if rest != "json":
        say("Invalid or missing format. For 'json' mode use '/set format json'")
        return
    chat.conversation.format = rest
    say(f"Set format to '{rest}' mode.")


def _set_noformat(chat: Chat, _rest: str) -> None:
    chat.conversation.format = None
    say("Disabled format.")


def _set_verbose(chat: Chat, _rest: str) -> None:
    chat.conversation.is_verbose = True
    say("Set 'verbose' mode.")


def _set_quiet(chat: Chat, _rest: str) -> None:
    chat.conversation.is_verbose = False
    say("Set 'quiet' mode.")


def _set_think(chat: Chat, rest: str) -> None:
    if rest and rest not in THINK_LEVELS:
        say(f"Unknown level '{rest}'; there are {', '.join(THINK_LEVELS)}")
        return
    chat.conversation.think = rest or True
    say(f"Set 'think' mode to '{rest}'." if rest else "Set 'think' mode.")


def _set_nothink(chat: Chat, _rest: str) -> None:
    chat.conversation.think = False
    say("Set 'nothink' mode.")


def _show(chat: Chat, rest: str) -> None:
    if not rest:
        say(help_texts.SHOW)
        return
    if rest not in SHOW_WORDS:
        say(f"Unknown command '/show {rest}'. Type /? for help")
        return
    card = chat.backend.card(chat.model.name)
    conversation = chat.conversation
    match rest:
        case "info":
            from corral.cli.card import describe

            say(describe(card) + "\n")
        case "license":
            say(card.license or "No license was specified for this model.")
        case "modelfile":
            say(card.modelfile)
        case "parameters":
            _show_parameters(card.parameters, conversation.options)
        case "system":
            say(conversation.system or card.system or "No system message was specified for this model.")
        case "template":
            say(card.template or "No prompt template was specified for this model.")


def _show_parameters(of_model: str, of_user: dict[str, object]) -> None:
    from corral.cli.local_backend import parameter_lines

    for title, lines in (("Model", of_model), ("User", parameter_lines(of_user))):
        if lines:
            say(f"{title} defined parameters:\n" + "".join(f"  {line}\n" for line in lines.splitlines()))
    if not of_model and not of_user:
        say("No additional parameters were specified for this model.")


def _load(chat: Chat, rest: str) -> None:
    if not rest or " " in rest:
        say("Usage:\n  /load <modelname>")
        return
    say(f"Loading model '{rest}'")
    try:
        chat.load(rest)
    except ModelNotFound as error:
        say(f"Couldn't find model '{rest}': {error}")


def _save(chat: Chat, rest: str) -> None:
    if not rest or " " in rest:
        say("Usage:\n  /save <modelname>")
        return
    chat.save(rest)
    say(f"Created new model '{rest}'")


def _clear(chat: Chat, _rest: str) -> None:
    chat.conversation.messages.clear()
    say("Cleared session context")


def _list(chat: Chat, _rest: str) -> None:
    rows = [("NAME", "ID", "SIZE", "MODIFIED")]
    rows += [
        (model.name, model.digest[:12], human.size(model.size), human.moment(model.modified_at))
        for model in chat.backend.models()
    ]
    say(human.table(rows))


def _help(_chat: Chat, rest: str) -> None:
    say(help_texts.TOPICS.get(rest, help_texts.COMMANDS))


_Command = Callable[["Chat", str], None]
_COMMANDS: dict[str, _Command] = {
    "/set": _set,
    "/show": _show,
    "/load": _load,
    "/save": _save,
    "/clear": _clear,
    "/list": _list,
    "/help": _help,
    "/?": _help,
}
_SETTERS: dict[str, _Command] = {
    "parameter": _set_parameter,
    "system": _set_system,
    "history": _set_history,
    "nohistory": _set_nohistory,
    "wordwrap": _set_wordwrap,
    "nowordwrap": _set_nowordwrap,
    "format": _set_format,
    "noformat": _set_noformat,
    "verbose": _set_verbose,
    "quiet": _set_quiet,
    "think": _set_think,
    "nothink": _set_nothink,
}
