"""From a folder of safetensors to one GGUF file: `convert_safetensors(folder, target)`."""

from corral.model.convert.convert import convert_safetensors

__all__ = ["convert_safetensors"]
