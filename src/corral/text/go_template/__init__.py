"""Go's text/template, in the subset that chat templates use."""

from corral.text.go_template.template import GoTemplate

__all__ = ["GoTemplate"]
