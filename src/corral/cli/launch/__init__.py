"""`corral launch`: coding agents of others, pointed at our server. verb.py is the command, tools.py what each of them
wants to be told, json_edit.py changes their files so that it can be taken back."""
