"""A trace of every request, for OpenTelemetry's collectors. Needs the extra `otel`."""
