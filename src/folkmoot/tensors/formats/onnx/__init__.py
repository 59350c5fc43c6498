"""ONNX models: `format` is what the rest of Folkmoot uses."""
