"""What operators watch: figures of requests, models, workers and memory, under vLLM's names where it has them."""
