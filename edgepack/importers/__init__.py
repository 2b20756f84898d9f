"""Turn a source model into a parity-checked float32 TFLite model, one module a format."""
