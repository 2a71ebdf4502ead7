"""The networks: graph encoder (torch), decoder of tabulated curves, export of both to ONNX. Needs the extra `train`."""
