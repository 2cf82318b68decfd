"""Names of models and the files behind them."""

from corral.store.store import resolve

__all__ = ["resolve"]
