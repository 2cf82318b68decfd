"""The chat of `corral run`: session.py reads and answers, editor.py is the line that is typed at, commands.py what
begins with a slash."""
