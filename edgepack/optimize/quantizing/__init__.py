"""Floats as integers: ranges, rounding, bias correction, and the quantizer itself."""
