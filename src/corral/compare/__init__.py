"""`corral compare` and `corral bench`: engines side by side, over HTTP alone, so that none has an advantage."""
