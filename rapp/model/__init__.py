"""The networks in torch: graph encoder, decoder of tables, export of both to ONNX. Extra `train`."""
